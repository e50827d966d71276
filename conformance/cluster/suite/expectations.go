package suite

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Expectations are the names of the tests that must pass.
type Expectations map[string]bool

// ReadExpectations reads a list of names, one a line; # begins a comment. No file is no expectation.
func ReadExpectations(path string) (Expectations, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Expectations{}, nil
	} else if err != nil {
		return nil, fmt.Errorf("expectations: %w", err)
	}
	expected := Expectations{}
	for _, line := range strings.Split(string(data), "\n") {
		name, _, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name != "" {
			expected[name] = true
		}
	}
	return expected, nil
}

// Write stores the list.
func (e Expectations) Write(path string) error {
	text := "# Tests that must pass, written by `just conformance ... --accept`.\n"
	for _, name := range slices.Sorted(maps.Keys(e)) {
		text += name + "\n"
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// Comparison is what differs from the expectations.
type Comparison struct {
	Lost   []string // must pass, and did not
	Gained []string // passed, and nobody expects it
}

// Compare holds results against the expectations; only names the one test that was run, if it was
// only one.
func (e Expectations) Compare(results *Results, only string) Comparison {
	var c Comparison
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if (only == "" || only == name) && results.Outcomes[name] != Passed {
			c.Lost = append(c.Lost, name)
		}
	}
	for _, name := range results.With(Passed) {
		if !e[name] {
			c.Gained = append(c.Gained, name)
		}
	}
	return c
}
