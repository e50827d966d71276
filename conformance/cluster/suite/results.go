// Package suite runs an upstream conformance suite and judges it by the output of its tests. The
// report that a suite writes about itself is not enough: it records a test that runs in parallel
// with others as passed before it has run.
package suite

import (
	"bufio"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Outcome is how a test ended.
type Outcome string

// The outcomes. A test that began and never ended counts as failed.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Results are the outcomes of a suite's tests by name, and what failed ones complained about.
type Results struct {
	Outcomes   map[string]Outcome
	Complaints map[string][]string // "" for the suite's own set-up
	begun      map[string]bool
	said       map[string]int // what the suite's set-up logged, and how often
}

// marker precedes the lines about tests with -test.v=test2json, which alone tells the end of a test
// when it ends, and not when all have ended.
const marker = "\x16"

const root = "TestConformance"

var (
	verdictLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \((\S+)\)`)
	beginLine   = regexp.MustCompile(`^=== (RUN|CONT|NAME|PAUSE)\s+(\S+)`)
	setUpLine   = regexp.MustCompile(`^    \S+\.go:\d+: (?:\d{4}-\S+Z: )?(.+)`)
	moreLine    = regexp.MustCompile(`^\s+\t\s+\t(.+)`) // what goes on below an error that ends in a colon
	errorLine   = regexp.MustCompile(`^\s+(Error|Messages):\s+(.*)`)
)

// mostComplaints are kept per test.
const mostComplaints = 4

// Parse reads the output of a test binary run with -test.v=test2json and calls each for every test of the
// suite as it ends.
func Parse(output io.Reader, each func(name string, outcome Outcome, took string)) (*Results, error) {
	results := &Results{Outcomes: map[string]Outcome{}, Complaints: map[string][]string{}, begun: map[string]bool{}, said: map[string]int{}}
	lines := bufio.NewReader(output)
	current := ""
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimPrefix(strings.TrimRight(line, "\n"), marker)
		if m := beginLine.FindStringSubmatch(line); m != nil {
			current, _ = testOf(m[2])
			if current != "" && m[1] == "RUN" {
				results.begun[current] = true
			}
		} else if m := verdictLine.FindStringSubmatch(line); m != nil {
			if name, whole := testOf(m[2]); whole && name != "" {
				outcome := map[string]Outcome{"PASS": Passed, "FAIL": Failed, "SKIP": Skipped}[m[1]]
				results.Outcomes[name] = outcome
				each(name, outcome, m[3])
			}
		} else if m := errorLine.FindStringSubmatch(line); m != nil {
			results.complain(current, m[2])
		} else if m := moreLine.FindStringSubmatch(line); m != nil && results.unfinished(current) {
			results.complain(current, m[1])
		} else if m := setUpLine.FindStringSubmatch(line); m != nil && current == "" {
			results.said[m[1]]++
		}
		if err != nil {
			break
		}
	}
	for name := range results.begun {
		if _, ended := results.Outcomes[name]; !ended {
			results.Outcomes[name] = Failed
			each(name, Failed, "never ended")
		}
	}
	return results, nil
}

func (r *Results) complain(test, text string) {
	text = strings.TrimSpace(text)
	switch held := r.Complaints[test]; {
	case r.unfinished(test):
		held[len(held)-1] += " " + text
	case len(held) < mostComplaints:
		r.Complaints[test] = append(held, text)
	}
}

func (r *Results) unfinished(test string) bool {
	held := r.Complaints[test]
	return len(held) > 0 && strings.HasSuffix(held[len(held)-1], ":")
}

// testOf is the suite's test that a Go test belongs to, and whether it is that test as a whole.
func testOf(goTest string) (name string, whole bool) {
	rest, ok := strings.CutPrefix(goTest, root+"/")
	if !ok {
		return "", false
	}
	name, _, part := strings.Cut(rest, "/")
	return name, !part
}

// WaitedFor is what the suite's set-up repeated most often: what it waited for in vain.
func (r *Results) WaitedFor() string {
	most := ""
	for _, text := range slices.Sorted(maps.Keys(r.said)) {
		if r.said[text] > r.said[most] {
			most = text
		}
	}
	return most
}

// With are the names of the tests with that outcome, in order.
func (r *Results) With(outcome Outcome) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r.Outcomes)) {
		if r.Outcomes[name] == outcome {
			names = append(names, name)
		}
	}
	return names
}
