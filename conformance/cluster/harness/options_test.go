package main

import (
	"slices"
	"testing"
)

func TestOptions(t *testing.T) {
	paths := []string{"--bin=b", "--data=d", "--repo=r", "--logs=l"}
	for _, c := range []struct {
		arguments []string
		suites    int
		good      bool
	}{
		{[]string{"run"}, 2, true},
		{[]string{"run", "gie", "--test", "X"}, 1, true},
		{[]string{"run", "--test", "X", "gateway"}, 1, true},
		{[]string{"run", "--test", "X"}, 2, false},
		{[]string{"again", "gateway", "--test", "X"}, 1, true},
		{[]string{"again", "gateway"}, 1, false},
		{[]string{"run", "other"}, 0, false},
		{[]string{"run", "--peer", "nobody"}, 2, false},
		{[]string{"run", "--unknown"}, 0, false},
		{[]string{"run", "gie", "--accept", "--", "-debug"}, 1, true},
	} {
		o, err := parseOptions(slices.Concat(c.arguments[:1], paths, c.arguments[1:]))
		if (err == nil) != c.good || len(o.suites) != c.suites {
			t.Errorf("%v: %d suites, error %v", c.arguments, len(o.suites), err)
		}
	}
}
