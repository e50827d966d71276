package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock/conformance/cluster/suite"
	"penstock/conformance/cluster/supervise"
)

// hurry keeps a suite from waiting minutes for a gateway that is known not to exist.
const hurry = "-timeout-config-overrides=NamespacesMustBeReady:15"

func (b *bench) runSuites(ctx context.Context) (int, error) {
	if err := b.install(ctx); err != nil {
		return 1, err
	}
	if b.bare {
		if err := b.acceptClass(ctx); err != nil {
			return 1, err
		}
	}
	code := 0
	for _, s := range b.suites {
		good, err := b.runSuite(ctx, s)
		if err != nil {
			return 1, err
		}
		if !good {
			code = 1
		}
	}
	if b.peer == "" && !b.bare && !b.attached {
		if err := identities(); err != nil {
			return 1, err
		}
	}
	return code, nil
}

// runSuite runs one suite and says whether it met the expectations.
func (b *bench) runSuite(ctx context.Context, s suite.Suite) (bool, error) {
	name, report := s.Name, filepath.Join(b.repo, "conformance/reports", s.ReportName)
	if b.peer != "" {
		name = s.Name + "-" + b.peer
	}
	if b.peer != "" || b.test != "" || b.bare {
		report = filepath.Join(b.logs, s.ReportName) // nothing to publish
	}
	run := suite.Run{
		Suite: s, Binaries: b.binaries, Kubeconfig: supervise.Kubeconfig("suite"), Class: b.class, Test: b.test, Report: report,
		Log: filepath.Join(b.logs, s.Name+".log"), Extra: b.suiteFlags(s),
	}
	fmt.Printf("== suite %s, GatewayClass %s\n", s.Name, b.class)
	began := time.Now()
	results, err := run.Start(ctx, func(name string, outcome suite.Outcome, took string) {
		if outcome != suite.Skipped {
			fmt.Printf("%-7s %s (%s)\n", outcome, name, took)
		}
	})
	if err != nil && !errors.Is(err, suite.ErrSetUp) {
		return false, err
	}
	list := filepath.Join(b.repo, "conformance/expectations", name+".txt")
	expected, listErr := suite.ReadExpectations(list)
	if listErr != nil {
		return false, listErr
	}
	explain(results, err)
	fmt.Printf("%s: %d passed, %d failed, %d skipped in %.0f s; expected to pass: %d (%s)\n", s.Name,
		len(results.With(suite.Passed)), len(results.With(suite.Failed)), len(results.With(suite.Skipped)), time.Since(began).Seconds(), len(expected), list)
	fmt.Println("output:", run.Log)
	if err == nil {
		if err := writeVerdicts(results, report); err != nil {
			return false, err
		}
	}
	if b.accept && err == nil {
		return true, b.acceptResults(results, list)
	}
	comparison := expected.Compare(results, b.test)
	printNames("must pass and did not", comparison.Lost)
	printNames("passed beyond expectation (--accept records it)", comparison.Gained)
	if b.test != "" && err == nil {
		return results.Outcomes[b.test] == suite.Passed, nil
	}
	return len(comparison.Lost) == 0 && err == nil, nil
}

// writeVerdicts puts what the output says of every test beside the suite's own report.
func writeVerdicts(results *suite.Results, report string) error {
	text := "# Counted from the output of the tests; the report beside this file calls parallel tests passed before they ran.\n"
	for _, outcome := range []suite.Outcome{suite.Failed, suite.Passed, suite.Skipped} {
		for _, name := range results.With(outcome) {
			text += fmt.Sprintf("%-7s %s\n", outcome, name)
		}
	}
	fmt.Println("report:", report)
	return os.WriteFile(strings.TrimSuffix(report, ".yaml")+".txt", []byte(text), 0o644)
}

func (b *bench) acceptResults(results *suite.Results, list string) error {
	accepted := suite.Expectations{}
	for _, name := range results.With(suite.Passed) {
		accepted[name] = true
	}
	fmt.Println("wrote", list)
	return accepted.Write(list)
}

// suiteFlags are those of the suite itself, for this gateway.
func (b *bench) suiteFlags(s suite.Suite) []string {
	project := "penstock"
	if b.peer != "" {
		project = b.peer
	}
	flags := []string{"-organization=" + project, "-project=" + project, "-url=unpublished", "-version=" + b.version, "-contact=see SECURITY.md"}
	if s.Name == "gateway" {
		flags = append(flags, "-conformance-profiles="+b.profiles)
		switch { // our own gateway says in its GatewayClass what it supports
		case b.bare:
			flags = append(flags, "-supported-features=Gateway,HTTPRoute,ReferenceGrant")
		case b.peer != "":
			flags = append(flags, "-supported-features="+peers[b.peer].features)
		}
	}
	if b.bare {
		flags = append(flags, hurry)
	}
	return append(flags, b.extra...)
}

func explain(results *suite.Results, err error) {
	if err != nil {
		fmt.Println(err)
		fmt.Println("  " + strings.Join(append(results.Complaints[""], "it waited for: "+results.WaitedFor()), "\n  "))
	}
	for _, name := range results.With(suite.Failed) {
		if complaints := results.Complaints[name]; len(complaints) > 0 {
			fmt.Printf("%s:\n  %s\n", name, strings.Join(complaints, "\n  "))
		}
	}
}

func printNames(title string, names []string) {
	if len(names) > 0 {
		fmt.Printf("%s:\n  %s\n", title, strings.Join(names, "\n  "))
	}
}
