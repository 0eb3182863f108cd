//! Logs on a real file system.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

struct Logged {
    dir: tempfile::TempDir,
    limits: LogBounds,
}

impl Logged {
    fn new(size: u64, keep: u32) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), limits: LogBounds { size, keep } }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("serial.log")
    }

    fn writer(&self) -> Writer {
        Writer::open(&self.path(), self.limits).unwrap()
    }

    /// Bytes of everything in the directory.
    fn total(&self) -> u64 {
        let sizes =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        sizes.sum()
    }

    fn reader(&self, start: Start) -> Reader {
        Reader::open(&self.path(), start).unwrap().unwrap()
    }
}

fn rest(reader: &mut Reader) -> String {
    let mut all = Vec::new();
    while let Some((_, bytes)) = reader.read().unwrap() {
        all.extend(bytes);
    }
    String::from_utf8(all).unwrap()
}

fn numbered(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

#[test]
fn a_log_is_bounded_and_what_is_kept_of_it_are_whole_lines() {
    let logged = Logged::new(10_000, 2);
    let mut writer = logged.writer();
    let lines = numbered(20_000);
    for (number, lines) in lines.chunks(37).enumerate() {
        writer.append(lines.concat().as_bytes(), at(number as u64));
    }
    let kept = rest(&mut logged.reader(Start::This));
    assert!(lines.concat().ends_with(&kept), "the last lines, in their order");
    assert!((20_000..=30_000).contains(&kept.len()), "{}", kept.len());
    for age in 0..3 {
        let part = fs::read_to_string(file(&logged.path(), age)).unwrap();
        assert!(part.starts_with("line ") && part.ends_with('\n'), "{age}");
    }
    assert!(logged.total() <= 3 * (10_000 + 10_000 / 4 + 64), "{}", logged.total());
}

#[test]
fn bytes_without_line_ends_are_bounded_as_well() {
    let logged = Logged::new(10_000, 1);
    let mut writer = logged.writer();
    for _ in 0..100 {
        writer.append(&[b'x'; 3000], at(1));
    }
    assert!(logged.total() <= 2 * (20_000 + 5_000), "{}", logged.total());
    assert!(rest(&mut logged.reader(Start::This)).len() > 10_000);
}

#[test]
fn an_index_is_smaller_than_its_log_may_be() {
    let logged = Logged::new(6400, 1);
    let mut writer = logged.writer();
    for second in 0..2000 {
        writer.append(b"\n", at(second));
    }
    assert!(logged.total() <= 2 * 6400, "{}", logged.total());
    assert!(rest(&mut logged.reader(Start::This)).len() >= 100);
}

#[test]
fn a_line_longer_than_a_file_is_not_torn() {
    let logged = Logged::new(100, 3);
    let long = format!("{}\n", "y".repeat(150));
    logged.writer().append(format!("short\n{long}end\n").as_bytes(), at(1));
    assert!(
        (0..4)
            .any(|age| fs::read_to_string(file(&logged.path(), age)).is_ok_and(|text| text.contains(&long)))
    );
    assert_eq!(rest(&mut logged.reader(Start::This)), format!("short\n{long}end\n"));
}

#[test]
fn a_reader_follows_over_rotations_without_losing_or_doubling() {
    let logged = Logged::new(200, 4);
    let mut writer = logged.writer();
    let lines = numbered(400);
    let mut reader = None;
    let mut read = String::new();
    for (number, line) in lines.iter().enumerate() {
        writer.append(line.as_bytes(), at(0));
        let reader = reader.get_or_insert_with(|| logged.reader(Start::This));
        // Now and then it lags behind by more than one file.
        if number % 60 == 0 || number % 7 == 0 && number < 200 {
            read.push_str(&rest(reader));
        }
    }
    read.push_str(&rest(&mut reader.unwrap()));
    assert_eq!(read, lines.concat());
}

#[test]
fn a_reader_that_is_too_slow_goes_on_with_what_is_kept() {
    let logged = Logged::new(200, 1);
    let mut writer = logged.writer();
    writer.append(b"first\n", at(0));
    let mut reader = logged.reader(Start::This);
    assert_eq!(rest(&mut reader), "first\n");
    let lines = numbered(300).concat();
    writer.append(lines.as_bytes(), at(1));
    let read = rest(&mut reader);
    let (before, after) = read.split_once("\n[sisforge: some lines were dropped").unwrap();
    let after = after.split_once("]\n").unwrap().1;
    assert!(lines.starts_with(&format!("{before}\n")[..before.len()]), "{before}");
    assert!(lines.ends_with(after) && after.len() > 200, "{after}");
}

#[test]
fn starts_are_told_apart_wherever_the_log_was_cut() {
    let logged = Logged::new(150, 9);
    let mut writer = logged.writer();
    writer.begin(at(0));
    assert!(Reader::open(&logged.path(), Start::Previous).unwrap().is_none());
    let first = numbered(30).concat() + "login: ";
    writer.append(first.as_bytes(), at(1));
    drop(writer);
    let mut writer = logged.writer();
    writer.begin(at(2));
    assert_eq!(rest(&mut logged.reader(Start::This)), "");
    writer.append(b"second\n", at(3));
    assert_eq!(rest(&mut logged.reader(Start::This)), "second\n");
    assert_eq!(rest(&mut logged.reader(Start::Previous)), first + "\n");
    writer.begin(at(4));
    assert_eq!(rest(&mut logged.reader(Start::Previous)), "second\n");
}

#[test]
fn a_keeper_that_goes_on_begins_no_start() {
    let logged = Logged::new(1000, 1);
    let mut writer = logged.writer();
    writer.begin(at(0));
    writer.append(b"one", at(1));
    drop(writer);
    logged.writer().append(b"two\n", at(2));
    assert_eq!(rest(&mut logged.reader(Start::This)), "onetwo\n");
}

#[test]
fn each_part_has_the_time_at_which_it_came() {
    let logged = Logged::new(40, 9);
    let mut writer = logged.writer();
    for second in [10, 20, 30, 40, 50] {
        writer.append(format!("came at {second}\nand this\n").as_bytes(), at(second));
    }
    let mut reader = logged.reader(Start::This);
    let mut lines = Lines::default();
    let mut found = Vec::new();
    while let Some((time, bytes)) = reader.read().unwrap() {
        lines.feed(time, &bytes, |time, line| found.push((time, String::from_utf8_lossy(line).into_owned())));
    }
    assert_eq!(found.len(), 10);
    for (time, line) in found.iter().filter(|(_, line)| line.starts_with("came")) {
        assert_eq!(format!("came at {}", time.unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs()), *line);
    }
}

#[test]
fn a_damaged_or_missing_index_costs_the_times_alone() {
    let logged = Logged::new(40, 9);
    logged.writer().append(numbered(20).concat().as_bytes(), at(1));
    fs::write(index(&logged.path(), 1), b"sislog1\nnonsense that is not a record").unwrap();
    fs::remove_file(index(&logged.path(), 0)).unwrap();
    assert_eq!(rest(&mut logged.reader(Start::This)), numbered(20).concat());
    logged.writer().append(b"more\n", at(9));
    assert_eq!(rest(&mut logged.reader(Start::This)), numbered(20).concat() + "more\n");
}

#[test]
fn fewer_files_are_kept_once_fewer_are_wanted() {
    let logged = Logged::new(40, 9);
    logged.writer().append(numbered(100).concat().as_bytes(), at(1));
    assert!(file(&logged.path(), 9).exists());
    let _ = Writer::open(&logged.path(), LogBounds { size: 40, keep: 2 }).unwrap();
    let left = fs::read_dir(logged.dir.path()).unwrap().count();
    assert_eq!(left, 2 * 3);
}

#[test]
fn what_could_not_be_written_is_told() {
    if fs::metadata("/dev/full").is_err() {
        eprintln!("SKIPPED: there is no /dev/full");
        return;
    }
    let logged = Logged::new(1000, 1);
    std::os::unix::fs::symlink("/dev/full", logged.path()).unwrap();
    let mut writer = Writer::open(&logged.path(), logged.limits).unwrap();
    writer.append(b"lost\n", at(1));
    fs::remove_file(logged.path()).unwrap();
    writer.append(b"written\n", at(2));
    let text = rest(&mut logged.reader(Start::This));
    assert_eq!(text, "\n[sisforge: 5 bytes could not be written here]\nwritten\n");
}

#[test]
fn lines_are_put_together_from_pieces_and_cut_where_they_never_end() {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in ["on", "e\r\ntwo\nthr", "ee"] {
        lines.feed(Some(at(1)), piece.as_bytes(), |_, line| found.push(line.len()));
    }
    lines.finish(|_, line| found.push(line.len()));
    assert_eq!(found, [3, 3, 5]);
    found.clear();
    lines.feed(None, &vec![b'x'; 3 * LONGEST_LINE as usize], |_, line| found.push(line.len()));
    assert_eq!(found, [3 * LONGEST_LINE as usize]);
}

#[test]
fn only_a_pipe_is_taken_for_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fs::write(&path, "text").unwrap();
    assert!(open_pipe_to_read(&path).is_err());
    let link = dir.path().join("link");
    crate::sys::fs::make_pipe(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(open_pipe_to_read(&link).is_err(), "nor is what a link leads to");
    assert!(open_pipe_to_read(&path).is_ok());
}
