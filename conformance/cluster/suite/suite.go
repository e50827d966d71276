package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Suite is one upstream suite.
type Suite struct {
	Name       string
	Binary     string   // its test binary, in the directory of binaries
	Namespaces []string // of its base manifest
	Pods       int      // that its base manifest asks for
	Flags      []string
	Deadline   time.Duration
	ReportName string
}

// The addresses by which a suite tests whether a gateway takes an address that it is asked for.
const (
	usableAddress   = "10.240.0.200"
	unusableAddress = "192.0.2.1"
)

// chances is for GatewayWeightedAcrossTwoInferencePools. Before it measures the split of 70 to 30 it asks,
// for each Pod of both pools, until three questions in a row came to that Pod; after each that did not it
// waits a second. In the pool of 30 % that takes 37 rounds on average, and after the 300 s that the
// suite allows it has not happened for one of the three Pods in 1 of 1200 runs, on a busy machine (1.25 s a
// round) in 1 of 240. After 600 s that is 1 in 160000 even there.
const chances = "-timeout-config-overrides=MaxTimeToConsistency:600"

// Suites are all that there are.
var Suites = []Suite{
	{
		Name: "gie", Binary: "gie.test", Deadline: 30 * time.Minute, ReportName: "gateway-api-inference-extension-v1.6.0.yaml",
		Namespaces: []string{"inference-conformance-infra", "inference-conformance-app-backend"},
		Pods:       17,
		Flags:      []string{chances},
	},
	{
		Name: "gateway", Binary: "gateway.test", Deadline: 60 * time.Minute, ReportName: "gateway-api-v1.6.1.yaml",
		Namespaces: []string{"gateway-conformance-infra", "gateway-conformance-app-backend", "gateway-conformance-web-backend"},
		Pods:       23,
		Flags:      []string{"-usable-address=" + usableAddress, "-unusable-address=" + unusableAddress},
	},
}

// Named finds a suite.
func Named(name string) (Suite, error) {
	var known []string
	for _, s := range Suites {
		if s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Suite{}, fmt.Errorf("there is no suite %q; there are %s", name, strings.Join(known, " and "))
}

// Run is one run of a suite.
type Run struct {
	Suite
	Binaries, Kubeconfig string
	Class                string // the GatewayClass to test
	Test                 string // only this test, if named
	Report               string // where the suite writes its own report
	Log                  string // where all of its output goes
	Extra                []string
}

// Start runs the suite to its end, or until ctx ends, and returns what its output says.
func (r Run) Start(ctx context.Context, each func(name string, outcome Outcome, took string)) (*Results, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Deadline)
	defer cancel()
	all, err := os.Create(r.Log)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	arguments := []string{"-test.v=test2json", "-test.run=" + root, "-test.timeout=" + r.Deadline.String(), "-gateway-class=" + r.Class}
	arguments = append(arguments, r.Flags...)
	if r.Test != "" {
		arguments = append(arguments, "-run-test="+r.Test)
	}
	if r.Report != "" {
		arguments = append(arguments, "-report-output="+r.Report)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(r.Binaries, r.Binary), append(arguments, r.Extra...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	read, write := io.Pipe()
	cmd.Stdout = io.MultiWriter(all, write)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start suite %s: %w", r.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); write.Close() }()
	results, err := Parse(read, each)
	if err != nil {
		return nil, err
	}
	var exit *exec.ExitError
	switch err := <-ended; {
	case ctx.Err() == context.DeadlineExceeded:
		return results, fmt.Errorf("suite %s did not end within %v", r.Name, r.Deadline)
	case ctx.Err() != nil:
		return results, context.Cause(ctx)
	case err != nil && !errors.As(err, &exit):
		return results, fmt.Errorf("suite %s: %w", r.Name, err)
	case err != nil && len(results.Outcomes) == 0:
		return results, ErrSetUp
	case err != nil && len(results.With(Failed)) == 0:
		return results, fmt.Errorf("suite %s: no test failed, but the whole did (%w)", r.Name, err)
	}
	return results, nil
}

// ErrSetUp means that a suite did not come as far as its first test.
var ErrSetUp = errors.New("the suite's set-up failed, no test was run")
