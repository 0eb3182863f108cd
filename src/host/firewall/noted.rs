//! What is dropped of a guest's packets, told to whoever asks (`sisforge policy log`): so much of each guest that no guest drowns
//! another's.

use crate::base::Label;
use crate::sys::nflog;

use super::verdicts::Decider;

/// What each guest has used of what is told of it.
pub const SET: &str = "noted";

/// A rule that tells of packets, and lets them go on; `side` is the interface that is the guest's.
pub fn rule(side: &str, why: &str) -> String {
    let (group, length) = (nflog::GROUP, nflog::SNAPLEN);
    format!(
        "update @{SET} {{ {side} limit rate 10/second burst 50 packets }} log prefix \"{why}\" group {group} snaplen {length}\n"
    )
}

/// What is said of answers of name servers.
pub const ANSWER: &str = "answer";

/// A statement that tells of an answer of a name server by UDP: which name led the guest where.
pub fn answer() -> String {
    let (group, length) = (nflog::ANSWERS, nflog::ANSWER_SNAPLEN);
    format!("meta l4proto udp ct direction reply log prefix \"{ANSWER}\" group {group} snaplen {length}")
}

/// Why a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A rule of the policy refused it.
    Rule(Decider),
    /// No policy is asked about it; in words.
    Fixed(&'static str),
}

/// Reads what a rule says of a packet of a guest that has this policy.
pub fn reason(prefix: &str, policy: &Label) -> Option<DropReason> {
    if let Some(decider) = prefix.strip_prefix(&format!("rule-{policy}-")) {
        return Decider::named(decider).map(DropReason::Rule);
    }
    let words = match prefix {
        "not-its-own" => "it has another address or MAC than its guest, or is of IPv6",
        "fragments" => "it is a fragment",
        "to-host" => "it is for the host itself",
        "over-budget" => "the guest has used up its budget",
        "strayed" => "it would leave by another interface than the uplink",
        "unasked" => "the guest did not ask for it, and publishes nothing there",
        "visitors" => "the guest's visitors have used up their budget",
        "quarantined" => "the guest is quarantined",
        _ => return None,
    };
    Some(DropReason::Fixed(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_say_is_read_again() {
        let label: Label = "n".parse().unwrap();
        for decider in [Decider::Never, Decider::Deny(3), Decider::Private, Decider::Default] {
            assert_eq!(
                reason(&format!("rule-n-{}", decider.name()), &label),
                Some(DropReason::Rule(decider))
            );
        }
        assert_eq!(reason("rule-other-deny-3", &label), None);
        assert!(matches!(reason("unasked", &label), Some(DropReason::Fixed(_))));
    }
}
