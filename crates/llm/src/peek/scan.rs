//! Skips JSON strings and nested values 64 bytes at a time, with bit masks instead of a byte loop.
//!
//! For each block one mask says where quotes, backslashes and brackets are; a prefix xor over the
//! unescaped quotes tells text from structure (the technique of simdjson, Langdale and Lemire 2019).
//! The cost is the same for any content; only long text without quotes is crossed faster, by a jump.
//! Nothing recurses: depth is a number. State may be carried over the borders of pieces (`Nest`).
//! Brackets are counted, not matched in kind: what is wrong inside a value is the engine's to refuse.
//! `Scanner::detect` takes AVX2 where the machine has it, else the scalar twin, to which
//! property tests hold the other. Next: `peek.rs` and `walk.rs`, which call this.

#[cfg(target_arch = "x86_64")]
use pulp::x86::V3;

/// Bits of one 64-byte block, lowest bit first.
#[derive(Clone, Copy)]
struct Masks {
    quote: u64,
    backslash: u64,
    open: u64,
    close: u64,
}

trait Blocks: Copy {
    fn masks(self, block: &[u8; 64]) -> Masks;
}

/// Where in a nested value (object or array) a scan stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nest {
    /// Brackets open.
    depth: u64,
    /// All ones inside a string, else zero.
    in_string: u64,
    /// 1 when the next byte follows a backslash that escapes it, else 0.
    escaped: u64,
}

impl Nest {
    /// Behind a complete member of an object that was opened before.
    pub(crate) fn inside() -> Self {
        Self {
            depth: 1,
            ..Self::default()
        }
    }
}

/// What became of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// The value ends just before this offset.
    End(usize),
    /// The input ended first; `Nest` says where to go on.
    More,
    /// A backslash outside a string: not JSON.
    Malformed,
}

/// Chooses the block code once; two words, copied about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner {
    #[cfg(target_arch = "x86_64")]
    simd: Option<V3>,
}

impl Scanner {
    /// The fastest code for this machine. The answer is cached by the feature detection.
    #[inline]
    pub(crate) fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            simd: V3::try_new(),
        }
    }

    /// The byte-at-a-time twin.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn scalar() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            simd: None,
        }
    }

    /// Skips one nested value. A fresh `Nest` expects the opening bracket as the first byte.
    #[inline]
    pub(crate) fn skip_nested(self, nest: &mut Nest, bytes: &[u8]) -> Skipped {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.simd {
            return simd.vectorize(SkipNested { simd, nest, bytes });
        }
        nested_scalar(nest, bytes)
    }

    /// Offset of the quote that closes a string whose first byte is at `from`.
    #[inline]
    pub(crate) fn string_end(self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        // Keys and short values first, by the word: no call pays off for them.
        while at < from + SHORT {
            let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                break;
            };
            let word = u64::from_le_bytes(*word);
            let found = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
            if found != 0 {
                at += (found.trailing_zeros() / 8) as usize;
                let is_quote = bytes.get(at) == Some(&b'"');
                return if is_quote {
                    Some(at)
                } else {
                    self.long_string_end(bytes, at)
                };
            }
            at += 8;
        }
        self.long_string_end(bytes, at)
    }

    /// Whether `test` holds for what follows some quote whose next byte is one of `letters`. One
    /// pass looks for all of them: cheaper than a substring search for each.
    #[inline]
    pub(crate) fn any_quoted(
        self,
        bytes: &[u8],
        letters: [u8; 3],
        test: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.simd {
            return simd.vectorize(AnyQuoted {
                simd,
                bytes,
                letters,
                test,
            });
        }
        quoted_scalar(bytes, letters, test)
    }

    #[inline(never)]
    fn long_string_end(self, bytes: &[u8], from: usize) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.simd {
            return simd.vectorize(StringEnd { simd, bytes, from });
        }
        string_scalar(bytes, from)
    }
}

/// Strings up to this length are walked by the word.
const SHORT: usize = 24;

/// The high bit of each byte of `word` that equals `byte`; exact for the lowest such byte, which
/// is all that callers use.
#[inline(always)]
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let differing = word ^ (LOW * u64::from(byte));
    differing.wrapping_sub(LOW) & !differing & HIGH
}

#[cfg(target_arch = "x86_64")]
impl Blocks for V3 {
    #[inline(always)]
    fn masks(self, block: &[u8; 64]) -> Masks {
        use core::arch::x86_64::__m256i;
        let [low, high]: [__m256i; 2] = pulp::cast(*block);
        let splat = |byte: u8| self.avx._mm256_set1_epi8(byte.cast_signed());
        let equal = |low: __m256i, high: __m256i, byte: u8| {
            let wanted = splat(byte);
            let half = |part| {
                let equal = self.avx2._mm256_cmpeq_epi8(part, wanted);
                u64::from(self.avx2._mm256_movemask_epi8(equal).cast_unsigned())
            };
            half(low) | (half(high) << 32)
        };
        // '[' and '{' differ by 0x20 only, and so do ']' and '}'.
        let case = splat(0x20);
        let folded_low = self.avx2._mm256_or_si256(low, case);
        let folded_high = self.avx2._mm256_or_si256(high, case);
        Masks {
            quote: equal(low, high, b'"'),
            backslash: equal(low, high, b'\\'),
            open: equal(folded_low, folded_high, b'{'),
            close: equal(folded_low, folded_high, b'}'),
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct SkipNested<'a> {
    simd: V3,
    nest: &'a mut Nest,
    bytes: &'a [u8],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for SkipNested<'_> {
    type Output = Skipped;
    #[inline(always)]
    fn call(self) -> Skipped {
        nested_blocks(self.simd, self.nest, self.bytes)
    }
}

#[cfg(target_arch = "x86_64")]
struct StringEnd<'a> {
    simd: V3,
    bytes: &'a [u8],
    from: usize,
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for StringEnd<'_> {
    type Output = Option<usize>;
    #[inline(always)]
    fn call(self) -> Option<usize> {
        string_blocks(self.simd, self.bytes, self.from)
    }
}

#[cfg(target_arch = "x86_64")]
struct AnyQuoted<'a, T> {
    simd: V3,
    bytes: &'a [u8],
    letters: [u8; 3],
    test: T,
}

#[cfg(target_arch = "x86_64")]
impl<T: FnMut(&[u8]) -> bool> pulp::NullaryFnOnce for AnyQuoted<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn call(self) -> bool {
        use core::arch::x86_64::__m256i;
        let Self {
            simd: V3 { avx, avx2, .. },
            bytes,
            letters,
            mut test,
        } = self;
        let splat = |byte: u8| avx._mm256_set1_epi8(byte.cast_signed());
        let (quote, letters_at) = (splat(b'"'), letters.map(splat));
        let hits = |at: usize| {
            let [first @ .., _] = bytes.get(at..)?.first_chunk::<33>()?;
            let [_, second @ ..] = bytes.get(at..)?.first_chunk::<33>()?;
            let (first, second): (__m256i, __m256i) = (pulp::cast(*first), pulp::cast(*second));
            let [one, two, three] = letters_at.map(|letter| avx2._mm256_cmpeq_epi8(second, letter));
            let letter = avx2._mm256_or_si256(avx2._mm256_or_si256(one, two), three);
            let both = avx2._mm256_and_si256(avx2._mm256_cmpeq_epi8(first, quote), letter);
            Some(avx2._mm256_movemask_epi8(both).cast_unsigned())
        };
        // 32 quotes at a time with the 32 bytes behind them. The last 33 bytes overlap what was
        // seen before, whose hits are shifted out.
        let Some(last) = bytes.len().checked_sub(33) else {
            return quoted_scalar(bytes, letters, test);
        };
        let mut at = 0;
        loop {
            let from = at.min(last);
            let mut found = (hits(from).unwrap_or(0) >> (at - from)) << (at - from);
            while found != 0 {
                let quote = from + found.trailing_zeros() as usize;
                if test(bytes.get(quote + 1..).unwrap_or_default()) {
                    return true;
                }
                found &= found - 1;
            }
            if from == last {
                return false;
            }
            at += 32;
        }
    }
}

#[inline]
fn quoted_scalar(bytes: &[u8], letters: [u8; 3], mut test: impl FnMut(&[u8]) -> bool) -> bool {
    let mut rest = bytes;
    while let Some(quote) = rest.iter().position(|byte| *byte == b'"') {
        rest = rest.get(quote + 1..).unwrap_or_default();
        if rest.first().is_some_and(|letter| letters.contains(letter)) && test(rest) {
            return true;
        }
    }
    false
}

/// The block at `at`, padded with zeros beyond the end; `None` at the end.
#[inline(always)]
fn block_at<'a>(bytes: &'a [u8], at: usize, padded: &'a mut [u8; 64]) -> Option<&'a [u8; 64]> {
    let rest = bytes.get(at..)?;
    if let Some(block) = rest.first_chunk::<64>() {
        return Some(block);
    }
    if rest.is_empty() {
        return None;
    }
    *padded = [0; 64];
    for (to, from) in padded.iter_mut().zip(rest) {
        *to = *from;
    }
    Some(padded)
}

/// Bytes that a backslash escapes, and whether the byte after the first `length` ones is escaped.
#[inline(always)]
fn escaped_bytes(backslash: u64, escaped_first: u64, length: usize) -> (u64, u64) {
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let potential = backslash & !escaped_first;
    let maybe = potential << 1;
    let series = (maybe | ODD).wrapping_sub(potential);
    let escape_and_terminal = series ^ ODD;
    let escaped = escape_and_terminal ^ (backslash | escaped_first);
    let escapes = escape_and_terminal & backslash;
    (escaped, (escapes >> (length - 1)) & 1)
}

/// Bit i of the result: xor of bits 0..=i.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

#[inline(always)]
fn all_if(bit: u64) -> u64 {
    0u64.wrapping_sub(bit & 1)
}

#[inline(always)]
fn nested_blocks<B: Blocks>(blocks: B, nest: &mut Nest, bytes: &[u8]) -> Skipped {
    let Nest {
        mut depth,
        mut in_string,
        mut escaped,
    } = *nest;
    let mut padded = [0u8; 64];
    let mut at = 0;
    while let Some(block) = block_at(bytes, at, &mut padded) {
        let masks = blocks.masks(block);
        let length = (bytes.len() - at).min(64);
        let mut quote = masks.quote;
        let mut backslash_free = true;
        if masks.backslash | escaped != 0 {
            let (hidden, next) = escaped_bytes(masks.backslash, escaped, length);
            quote &= !hidden;
            escaped = next;
            backslash_free = false;
        }
        let text = prefix_xor(quote) ^ in_string;
        in_string = all_if(text >> 63);
        let open = masks.open & !text;
        let close = masks.close & !text;
        let closed = u64::from(close.count_ones());
        let end = if depth > closed {
            None
        } else {
            closing_bracket(depth, open, close)
        };
        if !backslash_free {
            let before = end.map_or(u64::MAX, |end| (1u64 << end) - 1);
            if masks.backslash & !text & before != 0 {
                return Skipped::Malformed;
            }
        }
        if let Some(end) = end {
            return Skipped::End(at + end as usize + 1);
        }
        depth = depth + u64::from(open.count_ones()) - closed;
        at += length;
        // A whole block of text without a quote: most likely a long text. Jump to its end, and go
        // on with masks there whatever the quote is (following escaped quotes one by one is slow).
        if in_string != 0 && masks.quote == 0 {
            (at, escaped) = jump(bytes, at, escaped);
        }
    }
    *nest = Nest {
        depth,
        in_string,
        escaped,
    };
    Skipped::More
}

/// Offset of the closing bracket that takes `depth` to zero.
#[inline(always)]
fn closing_bracket(depth: u64, open: u64, mut close: u64) -> Option<u32> {
    let mut closed = 0;
    while close != 0 {
        let at = close.trailing_zeros();
        closed += 1;
        let opened = u64::from((open & ((1u64 << at) - 1)).count_ones());
        if depth + opened <= closed {
            return Some(at);
        }
        close &= close - 1;
    }
    None
}

/// From inside a text: the next quote (or the end), and whether the byte there is escaped.
#[inline(always)]
fn jump(bytes: &[u8], at: usize, escaped: u64) -> (usize, u64) {
    // The byte that a backslash of the block before escapes is no candidate.
    let from = at + usize::from(escaped != 0);
    let Some(rest) = bytes.get(from..) else {
        return (at, escaped);
    };
    let length = memchr::memchr(b'"', rest).unwrap_or(rest.len());
    let text = rest.get(..length).unwrap_or_default();
    let backslashes = text.iter().rev().take_while(|byte| **byte == b'\\').count();
    (from + length, (backslashes & 1) as u64)
}

#[inline(always)]
fn string_blocks<B: Blocks>(blocks: B, bytes: &[u8], from: usize) -> Option<usize> {
    let mut padded = [0u8; 64];
    let (mut at, mut escaped) = (from, 0);
    while let Some(block) = block_at(bytes, at, &mut padded) {
        let masks = blocks.masks(block);
        let length = (bytes.len() - at).min(64);
        let mut quote = masks.quote;
        if masks.backslash | escaped != 0 {
            let (hidden, next) = escaped_bytes(masks.backslash, escaped, length);
            quote &= !hidden;
            escaped = next;
        }
        if quote != 0 {
            return Some(at + quote.trailing_zeros() as usize);
        }
        at += length;
        if masks.quote == 0 {
            (at, escaped) = jump(bytes, at, escaped);
        }
    }
    None
}

fn nested_scalar(nest: &mut Nest, bytes: &[u8]) -> Skipped {
    let Nest {
        mut depth,
        in_string,
        escaped,
    } = *nest;
    let (mut in_string, mut escaped) = (in_string != 0, escaped != 0);
    for (at, byte) in bytes.iter().enumerate() {
        if escaped {
            escaped = false;
            continue;
        }
        match byte {
            b'\\' if in_string => escaped = true,
            b'\\' => return Skipped::Malformed,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Skipped::End(at + 1);
                }
            }
            _ => {}
        }
    }
    *nest = Nest {
        depth,
        in_string: all_if(u64::from(in_string)),
        escaped: u64::from(escaped),
    };
    Skipped::More
}

fn string_scalar(bytes: &[u8], from: usize) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
