//! What is read of Kconfig files.

use super::*;
use crate::lock::kernel::DotConfig;

fn needs(symbols: &Symbols, name: &str) -> String {
    symbols.get(name).unwrap().definitions[0].needs().to_string()
}

#[test]
fn conditions_of_all_blocks_around_an_option_are_its_own() {
    let symbols = Symbols::of(
        "menu \"Network\"\n\tdepends on NET\n\nif NF_TABLES\nconfig NFT_MASQ\n\tdepends on NF_CONNTRACK\n\
         \tdepends on NF_NAT || \\\n\t\tNF_OTHER\n\ttristate \"masquerade\" if EXPERT\n\thelp\n\t  depends on help\n\
         \n\t  config HELP\n\nconfig NEXT\n\tbool\nendif\nendmenu\nconfig OUTSIDE\n\tdef_bool y\n",
    );
    assert_eq!(
        needs(&symbols, "NFT_MASQ"),
        "NET && NF_TABLES && NF_CONNTRACK && (NF_NAT || NF_OTHER) && EXPERT"
    );
    assert_eq!(needs(&symbols, "NEXT"), "NET && NF_TABLES");
    assert_eq!(needs(&symbols, "OUTSIDE"), "");
    assert!(symbols.get("HELP").is_none(), "a line of help is no option");
    assert!(symbols.get("NFT_MASQ").unwrap().has_prompt());
    assert!(!symbols.get("NEXT").unwrap().has_prompt());
}

#[test]
fn a_comment_has_no_say_in_what_follows() {
    let symbols = Symbols::of("comment \"needs X\"\n\tdepends on !X\nconfig A\n\tbool \"a\"\n");
    assert_eq!(needs(&symbols, "A"), "");
}

#[test]
fn who_selects_an_option_is_known_with_the_condition() {
    let symbols = Symbols::of(
        "config A\n\tbool \"a\"\n\tselect Z if B\nconfig C\n\tbool \"c\"\n\tselect Z\nconfig D\n\tbool\n\tselect Z\n",
    );
    let config = DotConfig::parse(".config", "CONFIG_A=y\nCONFIG_D=y\n").unwrap();
    assert_eq!(symbols.selectors("Z").map(|(name, _)| name).collect::<Vec<_>>(), ["A", "C", "D"]);
    assert_eq!(symbols.selected_by("Z", &config), ["D"]);
}

#[test]
fn of_a_choice_one_is_chosen() {
    let symbols = Symbols::of(
        "choice\n\tprompt \"Timer\"\n\tdefault HZ_250\nconfig HZ_100\n\tbool \"100\"\nconfig HZ_250\n\tbool \"250\"\nendchoice\nconfig HZ\n\tint\n",
    );
    let config = DotConfig::parse(".config", "CONFIG_HZ_250=y\nCONFIG_HZ=250\n").unwrap();
    assert_eq!(symbols.chosen_instead("HZ_100", &config), Some("HZ_250"));
    assert_eq!(symbols.chosen_instead("HZ_250", &config), None);
    assert_eq!(symbols.chosen_instead("HZ", &config), None);
}

#[test]
fn files_are_followed_with_the_architecture_in_their_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("arch/x86")).unwrap();
    let write = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
    write("Kconfig", "if TOP\nsource \"arch/$(SRCARCH)/Kconfig\"\nendif\nsource \"absent/Kconfig\"\n");
    write("arch/x86/Kconfig", "config X86\n\tdef_bool y\n");
    let symbols = Symbols::read(dir.path(), "x86").unwrap();
    assert_eq!(needs(&symbols, "X86"), "TOP");
    assert_eq!(symbols.get("X86").unwrap().definitions[0].place, "arch/x86/Kconfig:1");
}
