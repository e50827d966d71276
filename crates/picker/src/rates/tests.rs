//! What is learnt of speeds: fits, clamps, and never a number that is none.

use super::*;
use proptest::prelude::*;

/// An endpoint of the given speed; tokens vary so that both parameters can be told apart.
fn taught(base: f64, slope: f64, samples: u32) -> (Learnt, Speeds) {
    let (mut learnt, mut shared) = (Learnt::default(), Speeds::default());
    for i in 0..samples {
        let tokens = f64::from(50 + (i * 7919) % 4000);
        let seconds = base + slope * tokens;
        learnt.first_token(&mut shared, tokens as f32, seconds as f32);
    }
    (learnt, shared)
}

#[track_caller]
fn check_learns(base: f64, slope: f64) {
    let (learnt, _) = taught(base, slope, 60);
    for tokens in [100.0, 1000.0, 4000.0] {
        let predicted = learnt.own.prefill.predict(tokens);
        let truth = base + slope * tokens;
        let off = (predicted - truth).abs() / truth;
        assert!(
            off < 0.15,
            "{tokens} tokens: {predicted} s instead of {truth} s"
        );
    }
    assert!(
        learnt.own.prefill_error() < 0.2,
        "error {}",
        learnt.own.prefill_error()
    );
}

#[test]
fn learns_speeds_far_from_the_prior() {
    check_learns(5.75e-3, 17.25e-6);
    check_learns(16e-3, 55e-6);
    check_learns(0.05, 1e-3);
    check_learns(0.5, 5e-3);
    check_learns(1e-3, 1e-6);
}

#[test]
fn follows_a_shift() {
    let (mut learnt, mut shared) = taught(5.75e-3, 17.25e-6, 200);
    for i in 0..30_u32 {
        let tokens = 100.0 + (i * 577 % 3000) as f32;
        learnt.first_token(&mut shared, tokens, 0.02 + 70e-6 * tokens);
    }
    let predicted = learnt.own.prefill.predict(2000.0);
    assert!((predicted - 0.16).abs() < 0.03, "{predicted}");
}

#[test]
fn one_outlier_does_little() {
    let (mut learnt, mut shared) = taught(5.75e-3, 17.25e-6, 100);
    let before = learnt.own.prefill.predict(1000.0);
    learnt.first_token(&mut shared, 1000.0, 60.0);
    let after = learnt.own.prefill.predict(1000.0);
    assert!(after < before * 6.0, "{before} to {after}");
    for _ in 0..10 {
        learnt.first_token(&mut shared, 1000.0, 0.023);
    }
    assert!((learnt.own.prefill.predict(1000.0) - 0.023).abs() < 0.004);
}

#[test]
fn scatter_of_short_prompts_says_little_of_long_ones() {
    let (mut learnt, mut shared) = (Learnt::default(), Speeds::default());
    // Four times the prior, but for factors from a third to three.
    let truth = |tokens: f32| 4.0 * (5.75e-3 + 17.25e-6 * tokens);
    for i in 0..400_u32 {
        let tokens = (13 + i * 37 % 80) as f32;
        let factor = 3.0_f32.powf((i * 7919 % 201) as f32 / 100.0 - 1.0);
        learnt.first_token(&mut shared, tokens, truth(tokens) * factor);
        let predicted = shared.prefill.predict(4000.0) as f32 / truth(4000.0);
        assert!(
            i < 20 || (0.3..4.0).contains(&predicted),
            "{i}: {predicted}"
        );
    }
}

#[test]
fn equal_endpoints_keep_exactly_equal_rates_in_spite_of_noise() {
    let (mut a, mut b, mut shared) = (Learnt::default(), Learnt::default(), Speeds::default());
    for i in 0..500_u32 {
        let tokens = 100.0 + (i * 577 % 3000) as f32;
        let noise = 0.9 + 0.2 * (i * 37 % 100) as f32 / 100.0;
        let learnt = if i % 3 == 0 { &mut a } else { &mut b };
        learnt.first_token(&mut shared, tokens, (0.006 + 17e-6 * tokens) * noise);
        learnt.decoded(&mut shared, (i % 20) as f32, 0.006 * noise);
    }
    assert_eq!(a.rates(&shared), b.rates(&shared));
}

#[test]
fn an_endpoint_of_another_speed_goes_by_its_own_rates() {
    let (mut fast, mut slow, mut shared) =
        (Learnt::default(), Learnt::default(), Speeds::default());
    for i in 0..400_u32 {
        let tokens = 200.0 + (i * 577 % 3000) as f32;
        fast.first_token(&mut shared, tokens, 0.006 + 17e-6 * tokens);
        slow.first_token(&mut shared, tokens, 0.012 + 68e-6 * tokens);
    }
    let (fast, slow) = (fast.rates(&shared), slow.rates(&shared));
    let ratio = slow.prefill_token_seconds / fast.prefill_token_seconds;
    assert!((3.0..5.0).contains(&ratio), "{ratio}");
}

#[test]
fn unpredictable_times_lose_the_trust_and_steady_ones_regain_it() {
    let mut trust = Trust::default();
    for _ in 0..20 {
        trust.sample(0.95);
    }
    assert!(!trust.trusted && trust.error > 0.8);
    for _ in 0..20 {
        trust.sample(0.1);
    }
    assert!(trust.trusted && trust.error < 0.3);
    trust.sample(f32::NAN);
    assert!(trust.error.is_finite());
}

proptest! {
    #[test]
    fn rates_stay_finite_and_bounded(
        samples in prop::collection::vec((0.0_f32..1e7, 0.0_f32..1e5), 0..300),
    ) {
        let (mut learnt, mut shared) = (Learnt::default(), Speeds::default());
        for (x, seconds) in samples {
            let error = learnt.first_token(&mut shared, x, seconds);
            learnt.decoded(&mut shared, x, seconds);
            prop_assert!((0.0..=1.0).contains(&error));
            for rates in [learnt.rates(&shared), learnt.own.rates, shared.rates] {
                for (value, most) in [
                    (rates.prefill_base_seconds, 10.0),
                    (rates.prefill_token_seconds, 1.0),
                    (rates.decode_base_seconds, 10.0),
                    (rates.decode_sequence_seconds, 1.0),
                ] {
                    prop_assert!(value > 0.0 && value <= most, "{rates:?}");
                }
            }
        }
    }
}
