use sisforge::apk::*;
use std::path::{Path, PathBuf};
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    match a[0].as_str() {
        "key" => {
            SigningKey::generate(Path::new(&a[1])).unwrap();
        }
        "pack" => {
            // key outdir debs
            let key = SigningKey::read(Path::new(&a[1])).unwrap();
            let t = std::time::Instant::now();
            let paths: Vec<PathBuf> = a[3..].iter().map(Into::into).collect();
            let map =
                std::env::var("MAP").ok().map(|m| PackMap::read(Path::new(&m)).unwrap()).unwrap_or_default();
            for p in convert_debs(&paths, &map, Missing::Ignore, Some(&key)).unwrap_or_else(|e| panic!("{e}"))
            {
                std::fs::write(Path::new(&a[2]).join(p.info.file_name()), &p.bytes).unwrap();
                println!(
                    "{} {} D:{:?} {:?}",
                    p.info.id(),
                    p.bytes.len(),
                    p.info.depends.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(" "),
                    p.notes
                );
            }
            println!("{:?}", t.elapsed());
        }
        "index" => {
            let key = SigningKey::read(Path::new(&a[1])).unwrap();
            let b = sign_directory(Path::new(&a[2]), &key).unwrap_or_else(|e| panic!("{e}"));
            std::fs::write(Path::new(&a[2]).join(INDEX_FILE), b).unwrap();
        }
        "solve" => {
            // index keys < worlds
            let t = std::time::Instant::now();
            let index =
                Index::verify(&std::fs::read(&a[1]).unwrap(), &KeyRing::read(&[(&a[2]).into()]).unwrap())
                    .unwrap();
            eprintln!("index {:?}", t.elapsed());
            for line in std::io::stdin().lines() {
                let line = line.unwrap();
                let t = std::time::Instant::now();
                let world: Vec<Dependency> = line.split_whitespace().map(|w| w.parse().unwrap()).collect();
                println!("WORLD {line}");
                match solve(&world, &[Repository { index: &index, tag: None }], &a[3]) {
                    Ok(list) => {
                        let n = list.len();
                        for (i, c) in list.iter().enumerate() {
                            println!("({}/{}) Installing {} ({})", i + 1, n, c.info.name, c.info.version)
                        }
                    }
                    Err(e) => println!("ERROR\n{e}"),
                }
                if std::env::var("TIME").is_ok() {
                    eprintln!("{:?}", t.elapsed());
                }
            }
        }
        _ => {}
    }
}
