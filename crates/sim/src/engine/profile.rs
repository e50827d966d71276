//! Hardware profiles: how long a step of the engine takes, and how much cache it has.
//!
//! Coefficients are integer picoseconds, so that step times never depend on float rounding.
//! Figures are estimates: bases and token costs are fits of published step times (BLIS golden set,
//! Vidur), the context and attention terms come from KV bytes over bandwidth and FLOPs over half
//! of peak. Add a profile by adding one constant and its name to [`PROFILES`].

use core::str::FromStr;

/// Speed and size of one model on one kind of hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Name that people type, e.g. `8b-h100`.
    pub name: &'static str,
    /// Short name, e.g. `p1`.
    pub alias: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Picoseconds of a step whatever is in it (weights read, launches, sampling).
    pub base_ps: u64,
    /// Picoseconds per prompt token computed.
    pub prefill_token_ps: u64,
    /// Picoseconds per sequence that decodes one token.
    pub decode_sequence_ps: u64,
    /// Picoseconds per context token that a decoding sequence reads.
    pub context_token_ps: u64,
    /// Picoseconds per pair of (prompt token, token before it): attention in prefill.
    pub attention_pair_ps: u64,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u32,
    /// Tokens computed in one step at most (`max_num_batched_tokens`).
    pub budget_tokens: u32,
}

/// All profiles, the default first.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "8b-h100",
        alias: "p1",
        summary: "8B model on one H100",
        base_ps: 5_750_000_000,
        prefill_token_ps: 17_250_000,
        decode_sequence_ps: 6_000_000,
        context_token_ps: 76_000,
        attention_pair_ps: 1_100,
        kv_tokens: 404_000,
        budget_tokens: 8_192,
    },
    Profile {
        name: "32b-2xh100",
        alias: "p2",
        summary: "32B model on two H100",
        base_ps: 13_000_000_000,
        prefill_token_ps: 48_800_000,
        decode_sequence_ps: 8_000_000,
        context_token_ps: 76_000,
        attention_pair_ps: 2_100,
        kv_tokens: 298_000,
        budget_tokens: 8_192,
    },
    Profile {
        name: "70b-4xh100",
        alias: "p3",
        summary: "70B model on four H100",
        base_ps: 16_000_000_000,
        prefill_token_ps: 55_000_000,
        decode_sequence_ps: 8_000_000,
        context_token_ps: 48_000,
        attention_pair_ps: 1_300,
        kv_tokens: 424_000,
        budget_tokens: 8_192,
    },
    Profile {
        name: "8b-a100",
        alias: "p4",
        summary: "8B model on one A100",
        base_ps: 9_700_000_000,
        prefill_token_ps: 66_700_000,
        decode_sequence_ps: 6_000_000,
        context_token_ps: 125_000,
        attention_pair_ps: 3_400,
        kv_tokens: 404_000,
        budget_tokens: 2_048,
    },
];

impl Default for Profile {
    fn default() -> Self {
        PROFILES[0]
    }
}

/// No profile has the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no profile is called `{name}`: use one of {}", names())]
pub struct UnknownProfile {
    name: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    /// Finds a profile by name or alias, in any case.
    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        PROFILES
            .iter()
            .find(|profile| {
                profile.name.eq_ignore_ascii_case(name) || profile.alias.eq_ignore_ascii_case(name)
            })
            .copied()
            .ok_or_else(|| UnknownProfile {
                name: name.to_owned(),
            })
    }
}

fn names() -> String {
    let each: Vec<String> = PROFILES
        .iter()
        .map(|profile| format!("{} ({})", profile.name, profile.alias))
        .collect();
    each.join(", ")
}
