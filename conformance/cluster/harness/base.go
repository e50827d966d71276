package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"penstock/conformance/cluster/selftest"
	"penstock/conformance/cluster/suite"
	"penstock/conformance/cluster/supervise"
)

// checkNode lets the node prove its promises.
func (b *bench) checkNode(ctx context.Context) (int, error) {
	fmt.Println("== promises of the node")
	bed := selftest.Bed{Kubectl: b.cluster.Kubectl, Logs: supervise.StateDir + "/agent/logs", AuditLog: supervise.AuditLog}
	passed, failed, err := selftest.Run(ctx, bed)
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1, err
	}
	return 0, err
}

// baseDeadline is how long a base manifest may take to become ready.
const baseDeadline = 90 * time.Second

// checkBase lets each suite apply its own base manifest, without any gateway, and shows that all of
// its Pods become ready and that the suite then fails for want of a gateway and for nothing else.
func (b *bench) checkBase(ctx context.Context) (int, error) {
	b.class, b.bare = class, true
	if err := b.acceptClass(ctx); err != nil {
		return 1, err
	}
	passed, failed := 0, 0
	for _, s := range b.suites {
		fmt.Printf("== base manifest of suite %s\n", s.Name)
		if err := b.checkBaseOf(ctx, s); err != nil {
			if ctx.Err() != nil {
				return 1, context.Cause(ctx)
			}
			failed++
			fmt.Printf("FAILED: %v\n", err)
			continue
		}
		passed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1, nil
	}
	return 0, nil
}

func (b *bench) checkBaseOf(ctx context.Context, s suite.Suite) error {
	run := suite.Run{
		Suite: s, Binaries: b.binaries, Kubeconfig: supervise.Kubeconfig("suite"), Class: class,
		Log: filepath.Join(b.logs, s.Name+".log"), Extra: append(b.suiteFlags(s), "-cleanup-base-resources=false"),
	}
	type outcome struct {
		results *suite.Results
		err     error
	}
	ended := make(chan outcome, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		results, err := run.Start(running, func(string, suite.Outcome, string) {})
		ended <- outcome{results, err}
	}()
	if err := b.waitForPods(ctx, s); err != nil {
		stop()
		<-ended
		return err
	}
	end := <-ended
	if !errors.Is(end.err, suite.ErrSetUp) {
		return fmt.Errorf("the suite should have failed for want of a gateway, but: %v; see %s", end.err, run.Log)
	}
	fmt.Printf("the suite then stops for want of a gateway: %s\n", end.results.WaitedFor())
	return nil
}

// waitForPods waits until every Deployment of the suite's namespaces has all its Pods ready.
func (b *bench) waitForPods(ctx context.Context, s suite.Suite) error {
	began := time.Now()
	ready, wanted, pods := 0, 0, ""
	var err error // a machine that is busy elsewhere may let one question time out
	for time.Since(began) < baseDeadline {
		ready, wanted, pods, err = b.countPods(ctx, s)
		if err == nil && ready == wanted && wanted >= s.Pods {
			fmt.Printf("%d of %d Pods ready after %.1f s\n", ready, wanted, time.Since(began).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("only %d of %d Pods ready after %v:\n%s", ready, max(wanted, s.Pods), baseDeadline, pods)
}

// countPods adds up the Deployments of the suite's namespaces; pods lists their Pods for a message.
func (b *bench) countPods(ctx context.Context, s suite.Suite) (ready, wanted int, pods string, err error) {
	for _, namespace := range s.Namespaces {
		text, err := b.cluster.Kubectl(ctx, "", "get", "deployments", "-n", namespace,
			"-o", "jsonpath={range .items[*]}{.spec.replicas} {.status.readyReplicas}{\"\\n\"}{end}")
		if err != nil {
			return 0, 0, "", err
		}
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			var w, r int
			if n, _ := fmt.Sscan(line, &w, &r); n > 0 {
				wanted, ready = wanted+w, ready+r
			}
		}
		list, err := b.cluster.Kubectl(ctx, "", "get", "pods", "-n", namespace)
		if err != nil {
			return 0, 0, "", err
		}
		pods += list
	}
	return ready, wanted, pods, nil
}
