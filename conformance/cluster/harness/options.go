package main

import (
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"penstock/conformance/cluster/suite"
)

// options are what the script ../../run passes on.
type options struct {
	command  string
	suites   []suite.Suite
	binaries string // what install.sh built
	data     string // CRDs
	repo     string // the clone
	logs     string // where the logs of the last run stay
	penstock string // the product's binary
	programs string // more entries of the image table
	test     string
	profiles string
	peer     string
	version  string
	accept   bool
	long     bool     // trials for as long as was promised
	extra    []string // flags of the suite itself
}

func parseOptions(arguments []string) (options, error) {
	o := options{command: arguments[0]}
	flags := flag.NewFlagSet(o.command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.binaries, "bin", "", "directory of the built programs")
	flags.StringVar(&o.data, "data", "", "directory of the CRDs")
	flags.StringVar(&o.repo, "repo", "", "the clone")
	flags.StringVar(&o.logs, "logs", "", "where logs stay")
	flags.StringVar(&o.penstock, "penstock", "", "the product's binary")
	flags.StringVar(&o.programs, "programs", "", "more images: IMAGE-SUBSTRING=PATH[@UID],...")
	flags.StringVar(&o.test, "test", "", "run only this test")
	flags.StringVar(&o.profiles, "profiles", "GATEWAY-HTTP", "profiles of the gateway suite")
	flags.StringVar(&o.peer, "peer", "", "test this gateway instead of ours: envoy-gateway")
	flags.StringVar(&o.version, "version", "unknown", "the product's version, for the report")
	flags.BoolVar(&o.long, "long", false, "trials take as long as what they promise, not as what fits into every run")
	flags.BoolVar(&o.accept, "accept", false, "write the tests that passed as the expectation")
	rest := arguments[1:]
	if i := slices.Index(rest, "--"); i >= 0 {
		rest, o.extra = rest[:i], rest[i+1:]
	}
	for len(rest) > 0 {
		if !strings.HasPrefix(rest[0], "-") {
			s, err := suite.Named(rest[0])
			if err != nil {
				return o, err
			}
			o.suites = append(o.suites, s)
			rest = rest[1:]
			continue
		}
		// One flag at a time, so that a suite's name may stand anywhere.
		if err := flags.Parse(rest); err != nil {
			return o, fmt.Errorf("%w; flags:\n%s", err, describe(flags))
		}
		rest = flags.Args()
	}
	if len(o.suites) == 0 {
		o.suites = suite.Suites
	}
	return o, o.check()
}

func (o *options) check() error {
	for _, path := range []*string{&o.binaries, &o.data, &o.repo, &o.logs} {
		if *path == "" {
			return fmt.Errorf("--bin, --data, --repo and --logs are needed; conformance/run passes them")
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if o.test != "" && len(o.suites) != 1 && o.command != "trials" {
		return fmt.Errorf("--test needs the name of its suite: gie or gateway")
	}
	if o.command == "again" && o.test == "" {
		return fmt.Errorf("only one test runs in a cluster that is up: --test NAME")
	}
	if o.accept && o.test != "" {
		return fmt.Errorf("--accept needs a run of the whole suite, without --test")
	}
	if o.peer != "" && peers[o.peer].class == "" {
		return fmt.Errorf("there is no peer %q; there is envoy-gateway", o.peer)
	}
	return nil
}

func describe(flags *flag.FlagSet) string {
	var out strings.Builder
	flags.VisitAll(func(f *flag.Flag) { fmt.Fprintf(&out, "  --%-10s %s\n", f.Name, f.Usage) })
	return out.String()
}
