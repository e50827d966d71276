//! Text and tokens: a token is four bytes, every generated word with its space is one token.
//!
//! So a block of the engine is a fixed number of bytes of (prompt + output), and a prompt that
//! begins with an earlier prompt and its answer finds the blocks of both. Same seed and prompt,
//! same words.

use twox_hash::XxHash3_64;

/// Bytes of one token.
pub(crate) const TOKEN_BYTES: usize = 4;

const WORDS: [&[u8; TOKEN_BYTES]; 64] = [
    b" ace", b" air", b" ant", b" arc", b" ash", b" bay", b" bee", b" box", b" cat", b" cup",
    b" day", b" dew", b" dot", b" ear", b" egg", b" elm", b" fan", b" fig", b" fog", b" fox",
    b" gem", b" hat", b" hen", b" hue", b" ice", b" ink", b" ivy", b" jam", b" jar", b" key",
    b" kit", b" law", b" leg", b" log", b" map", b" mix", b" net", b" nut", b" oak", b" oar",
    b" oil", b" owl", b" pen", b" pie", b" pot", b" ray", b" red", b" row", b" sea", b" sky",
    b" sun", b" tea", b" tin", b" toy", b" urn", b" van", b" vow", b" war", b" wax", b" web",
    b" yak", b" yam", b" zip", b" zoo",
];

/// Tokens of `bytes` bytes of text.
pub(crate) fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX)
}

/// The seed of everything generated for one choice of one prompt.
pub(crate) fn seed(prompt: &[u8], choice: u32, seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed.wrapping_add(u64::from(choice)), prompt)
}

/// The word that is token `index` (from 0) of the text of `seed`.
pub(crate) fn word(seed: u64, index: u32) -> &'static str {
    let draw = XxHash3_64::oneshot_with_seed(seed, &index.to_le_bytes()) % WORDS.len() as u64;
    let word = WORDS
        .get(draw as usize)
        .map_or(&b" ace"[..], |word| &word[..]);
    str::from_utf8(word).unwrap_or(" ace")
}

/// How many tokens an answer has when nobody says: 16 to 128.
pub(crate) fn natural_length(seed: u64) -> u32 {
    16 + (XxHash3_64::oneshot(&seed.to_le_bytes()) % 113) as u32
}

/// Identities of the full blocks of `prompt` and `output_tokens` generated words after it.
/// Each hash covers everything before it, `model` and `salt` too.
pub(crate) fn block_hashes(
    identity: (&str, &str),
    prompt: &[u8],
    output: (u64, u32),
    block_tokens: u32,
) -> Vec<u64> {
    let (model, salt) = identity;
    let (seed, output_tokens) = output;
    let mut text = prompt.to_vec();
    for index in 0..output_tokens {
        text.extend_from_slice(word(seed, index).as_bytes());
    }
    let mut chain =
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(model.as_bytes()), salt.as_bytes());
    let blocks = text.chunks_exact(block_tokens.max(1) as usize * TOKEN_BYTES);
    blocks
        .map(|block| {
            chain = XxHash3_64::oneshot_with_seed(chain, block);
            chain
        })
        .collect()
}
