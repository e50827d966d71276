package suite

import (
	"reflect"
	"strings"
	"testing"
)

const output = `=== RUN   TestConformance
=== RUN   TestConformance/Alpha
=== PAUSE TestConformance/Alpha
=== RUN   TestConformance/Beta
=== RUN   TestConformance/Beta/first_case
    x.go:1:
        	Error Trace:	x.go:1
        	Error:      	Received unexpected error:
        	            	context deadline exceeded
        	Messages:   	no address
--- FAIL: TestConformance (3.00s)
    --- FAIL: TestConformance/Beta (0.50s)
        --- FAIL: TestConformance/Beta/first_case (0.10s)
    --- SKIP: TestConformance/Gamma (0.00s)
=== RUN   TestConformance/Delta
` + marker + `    --- PASS: TestConformance/Alpha (1.00s)
`

func parse(t *testing.T, text string) *Results {
	t.Helper()
	results, err := Parse(strings.NewReader(text), func(string, Outcome, string) {})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestCountsWholeTestsOnly(t *testing.T) {
	results := parse(t, output)
	for outcome, want := range map[Outcome][]string{Passed: {"Alpha"}, Failed: {"Beta", "Delta"}, Skipped: {"Gamma"}} {
		if got := results.With(outcome); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
}

func TestKeepsComplaintsByTest(t *testing.T) {
	want := []string{"Received unexpected error: context deadline exceeded", "no address"}
	if got := parse(t, output).Complaints["Beta"]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestTellsWhatTheSetUpWaitedFor(t *testing.T) {
	text := "=== RUN   TestConformance\n"
	for _, line := range []string{"Applying", "Gateway x is not ready", "Gateway x is not ready", "deadline exceeded"} {
		text += "    helpers.go:1: 2026-11-24T22:38:08.1Z: " + line + "\n"
	}
	if got := parse(t, text).WaitedFor(); got != "Gateway x is not ready" {
		t.Errorf("got %q", got)
	}
}

func TestComparesWithExpectations(t *testing.T) {
	expected := Expectations{"Alpha": true, "Beta": true, "Epsilon": true}
	got := expected.Compare(parse(t, output), "")
	if want := (Comparison{Lost: []string{"Beta", "Epsilon"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("whole suite: %+v", got)
	}
	got = Expectations{"Epsilon": true}.Compare(parse(t, output), "Alpha")
	if want := (Comparison{Gained: []string{"Alpha"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("one test: %+v", got)
	}
}
