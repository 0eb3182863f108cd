//! What a guest costs its host beside its VMM: data disk, cgroup, jail and configuration, as `up` makes them and `down` removes
//! them, against a shell script that does the same with cp, ln, chown and mkdir.
//!
//! ```text
//! cargo bench --bench host            # needs root; BENCH_DIR names the file system, target/ unless given
//! BENCH_GUESTS=200 BENCH_DISK_GIB=4   # what they are unless given
//! ```
//!
//! TAPs and rules are not part of it, nor are the artifacts' own copies into the store, which happen once for all guests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sisforge::apply::linux::{LinuxHost, Scope};
use sisforge::apply::{Host, apply};
use sisforge::base::FileDigest;
use sisforge::base::GuestName;
use sisforge::fleet::{HostSpec, MachineSpec, VmmKind};
use sisforge::host::layout::Layout;
use sisforge::host::state::{CgroupLimits, Machine, MachineDisk};
use sisforge::plan::{DiskStep, GuestSteps, NetworkStep, Plan, Step, StepReason};
use sisforge::sys::cgroup::{self, IoLimits};
use sisforge::sys::report::Silent;

const ROUNDS: usize = 5;
const IMAGE_MIB: u64 = 300;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: cgroups and owners need root");
    }
    let parent = std::env::var("BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    fs::create_dir_all(&parent).unwrap();
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (guests, disk) = (number("BENCH_GUESTS", 200), number("BENCH_DISK_GIB", 4) << 30);
    let world = World::new(dir.path(), disk);
    println!(
        "{guests} guests, image of {IMAGE_MIB} MiB, disk of {} GiB with {} KiB in it; medians of {ROUNDS}",
        disk >> 30,
        allocated(&world.base) >> 10
    );
    for (what, kept) in [("disks of pools", false), ("kept disks, made and synced", true)] {
        let names: Vec<GuestName> = (0..guests).map(|at| format!("b{at}").parse().unwrap()).collect();
        let mut times = BTreeMap::<&str, Vec<Duration>>::new();
        for _ in 0..ROUNDS {
            rustix::fs::sync();
            let mut time = |name, work: &mut dyn FnMut()| {
                let begun = Instant::now();
                work();
                times.entry(name).or_default().push(begun.elapsed());
            };
            time("1 up, one after the other", &mut || world.up(&names, kept, 1));
            world.check(&names);
            time("2 down, one after the other", &mut || world.down(&names, 1));
            world.remove_disks(&names);
            rustix::fs::sync();
            time("3 up, eight at a time", &mut || world.up(&names, kept, 8));
            time("4 up again of what has its disk", &mut || world.again(&names, kept));
            world.down(&names, 8);
            world.remove_disks(&names);
            rustix::fs::sync();
            time("5 shell script", &mut || world.script(&names, kept));
            world.undo_script();
        }
        println!("{what}:");
        for (name, mut all) in times {
            all.sort();
            let median = all[all.len() / 2];
            println!(
                "  {:34} {:7.1} ms, {:6.3} ms a guest",
                &name[2..],
                ms(median),
                ms(median) / guests as f64
            );
        }
    }
    let one: Vec<GuestName> = vec!["only".parse().unwrap()];
    let mut alone: Vec<f64> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            world.up(&one, false, 1);
            let took = ms(begun.elapsed());
            world.down(&one, 1);
            took
        })
        .collect();
    alone.sort_by(f64::total_cmp);
    println!("one guest alone: {:.2} ms, of 50 the slowest {:.2} ms", alone[25], alone[49]);
    world.host.take(&Step::Network(NetworkStep::RemoveNetwork)).unwrap_or_default();
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

struct World {
    host: LinuxHost,
    machine: Machine,
    base: PathBuf,
    digest: FileDigest,
    dir: PathBuf,
}

impl World {
    fn new(dir: &Path, disk: u64) -> Self {
        // As large and as empty as a new ext4: little in many places.
        let base = dir.join("disk.ext4");
        let file = File::create(&base).unwrap();
        file.set_len(disk).unwrap();
        for at in 0..32 {
            file.write_all_at(&[at as u8 + 1; 16 << 10], disk / 32 * at).unwrap();
        }
        let image = dir.join("image.ext4");
        let bytes: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = File::create(&image).unwrap();
        (0..IMAGE_MIB).for_each(|at| file.write_all_at(&bytes, at << 20).unwrap());
        let whole = |path: &Path| FileDigest::Whole(sisforge::sys::digest::sha256_of_file(path).unwrap().0);
        let kernel = dir.join("vmlinux");
        fs::write(&kernel, &bytes).unwrap();
        let (digest, _) = sisforge::sys::digest::verity_digest(&base).unwrap();
        let (image_digest, kernel_digest) = (whole(&image), whole(&kernel));
        let spec = HostSpec {
            uplink_rates: Default::default(),
            uplink: None,
            subnet: "10.99.0.0/16".parse().unwrap(),
            uids: 900_000..=999_999,
            store: dir.join("store"),
            jails: None,
            logs: Default::default(),
        };
        let layout = Layout::new(&spec, &"bench".parse().unwrap());
        let mut host = LinuxHost::new(layout, Scope::WholeHost, cgroup::detect().unwrap(), PathBuf::new());
        host.artifacts = [(digest, base.clone()), (image_digest, image), (kernel_digest, kernel)].into();
        let machine = Machine {
            vmm: VmmKind::Firecracker,
            uid: 900_000,
            tap: "sis-b".parse().unwrap(),
            mac: "02:53:0a:6b:00:02".parse().unwrap(),
            ip: [10, 99, 0, 2].into(),
            vcpus: 1,
            memory_mib: 128,
            kernel: kernel_digest,
            image: image_digest,
            disk: MachineDisk::Kept,
            images: None,
            command_line: "console=ttyS0 panic=-1 nomodule quiet".into(),
            spec: MachineSpec::default(),
            kvm: false,
            session_disk: None,
            restored_from: None,
        };
        for stored in [digest, image_digest, kernel_digest] {
            apply_host(
                &host,
                Step::StoreFile { digest: stored, kind: sisforge::host::state::StoredKind::Image },
            );
        }
        Self { host, machine, base, digest, dir: dir.to_owned() }
    }

    fn machine(&self, at: usize, kept: bool) -> Machine {
        let disk = match kept {
            true => MachineDisk::Kept,
            false => MachineDisk::Ephemeral {
                base: self.digest,
                size: fs::metadata(&self.base).unwrap().len(),
                in_memory: false,
            },
        };
        Machine { uid: 900_000 + at as u32, disk, ..self.machine.clone() }
    }

    fn up(&self, names: &[GuestName], kept: bool, at_once: usize) {
        let limits = CgroupLimits {
            memory: 192 << 20,
            pids: 33,
            cpu_quota: 100_000,
            cpu_weight: 100,
            io: IoLimits::NONE,
        };
        let steps = |(at, name): (usize, &GuestName)| {
            let (guest, machine) = (name.clone(), self.machine(at, kept));
            let disk = kept.then(|| {
                Step::Disk(DiskStep::CreateDisk { guest: guest.clone(), base: self.digest, uid: machine.uid })
            });
            let steps = disk.into_iter().chain([
                Step::CreateCgroup { guest: guest.clone(), limits },
                Step::CreateJail { guest, machine },
            ]);
            GuestSteps::new(name, StepReason::found("new"), steps.collect())
        };
        self.apply(Plan { start: names.iter().enumerate().map(steps).collect(), ..Plan::default() }, at_once);
    }

    /// What a guest that died costs: a new jail in place of the old.
    fn again(&self, names: &[GuestName], kept: bool) {
        self.up(names, kept, 8);
    }

    fn down(&self, names: &[GuestName], at_once: usize) {
        let steps = |name: &GuestName| {
            let guest = || name.clone();
            let steps = vec![Step::RemoveCgroup { guest: guest() }, Step::RemoveJail { guest: guest() }];
            GuestSteps::new(name, StepReason::found("no longer wanted"), steps)
        };
        self.apply(Plan { stop: names.iter().map(steps).collect(), ..Plan::default() }, at_once);
    }

    fn apply(&self, plan: Plan, at_once: usize) {
        let applied = apply(&plan, &self.host, at_once, &Silent, &|_, _| {});
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    }

    /// Image data are not copied: every jail has the store's own inode, and takes little of the disk beside it.
    fn check(&self, names: &[GuestName]) {
        let image = fs::metadata(self.host.layout.file(&self.machine.image)).unwrap();
        assert_eq!(image.nlink(), names.len() as u64 + 1);
        let root = self.host.layout.jail_root(VmmKind::Firecracker, &names[0], 1);
        let own = ["data/disk.ext4", "config.json"].map(|file| allocated(&root.join(file)));
        assert!(own.iter().sum::<u64>() <= allocated(&self.base) + (64 << 10), "{own:?}");
    }

    fn remove_disks(&self, names: &[GuestName]) {
        names.iter().for_each(|name| sisforge::sys::fs::remove(&self.host.layout.disk(name)).unwrap());
    }

    fn script(&self, names: &[GuestName], kept: bool) {
        let store = self.host.layout.files();
        let file = |digest: &FileDigest| store.join(digest.to_string()).display().to_string();
        let procs = self.host.hierarchy.procs_files("sisforge-bench-peer");
        let cgroups: Vec<_> = procs.iter().map(|file| file.parent().unwrap().display().to_string()).collect();
        let script = format!(
            "set -e; at=900000; for guest in {names}; do
               root={dir}/peer/$guest/root; mkdir -p -m 755 $root; mkdir -m 700 $root/run $root/data
               ln {kernel} $root/vmlinux; ln {image} $root/rootfs.ext4
               cp --reflink=auto --sparse=auto {base} $root/data/disk.ext4; {sync}
               chmod 600 $root/data/disk.ext4; chown $at:$at $root/data/disk.ext4 $root/run $root/data
               echo '{{}}' > $root/config.json; chmod 444 $root/config.json
               mkfifo -m 600 $root/vmm.log; chown $at:$at $root/vmm.log
               for cgroup in {cgroups}; do
                 mkdir -p $cgroup/$guest
                 for limit in memory.limit_in_bytes=201326592 memory.max=201326592 pids.max=33 cpu.cfs_quota_us=100000; do
                   file=$cgroup/$guest/${{limit%=*}}; if [ -e $file ]; then echo ${{limit#*=}} > $file; fi
                 done
               done
               at=$((at + 1))
             done",
            names = names.iter().map(GuestName::as_str).collect::<Vec<_>>().join(" "),
            dir = self.dir.display(),
            kernel = file(&self.machine.kernel),
            image = file(&self.machine.image),
            base = file(&self.digest),
            sync = if kept { "sync $root/data/disk.ext4" } else { ":" },
            cgroups = cgroups.join(" "),
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    fn undo_script(&self) {
        fs::remove_dir_all(self.dir.join("peer")).unwrap();
        let hierarchy = &self.host.hierarchy;
        for guest in hierarchy.children("sisforge-bench-peer") {
            hierarchy.remove(&format!("sisforge-bench-peer/{guest}")).unwrap();
        }
        hierarchy.remove("sisforge-bench-peer").unwrap();
    }
}

fn apply_host(host: &LinuxHost, step: Step) {
    let applied = apply(&Plan { prepare: vec![step], ..Plan::default() }, host, 1, &Silent, &|_, _| {});
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
}
