package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock/conformance/cluster/selftest"
	"penstock/conformance/cluster/supervise"
)

// bench is a running cluster and what was asked for.
type bench struct {
	options
	cluster  *supervise.Cluster
	class    string // the GatewayClass to test
	bare     bool   // nothing implements the class
	attached bool   // the cluster is somebody else's
}

// inside is the harness itself, in its own namespaces: cluster, gateway, suites, and the end of all.
func inside(arguments []string) int {
	o, err := parseOptions(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return supervise.ExitUsage
	}
	ctx := untilSignal()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	began := time.Now()
	crds := []string{filepath.Join(o.data, "crds/gateway"), filepath.Join(o.data, "crds/gie")}
	if o.peer != "" {
		crds = append(crds, filepath.Join(o.data, "crds", o.peer))
	}
	cluster, err := supervise.Start(ctx, supervise.Options{Binaries: o.binaries, Programs: o.imageTable(), CRDs: crds})
	b := &bench{options: o, cluster: cluster}
	code := 1
	if err == nil {
		fmt.Printf("cluster ready after %.1f s\n", time.Since(began).Seconds())
		go func() { end(<-cluster.Failed) }()
		code, err = b.do(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
		code = 1
	}
	cluster.Stop()
	if err := b.keepLogs(); err != nil {
		fmt.Fprintln(os.Stderr, "keep logs:", err)
	}
	return code
}

func (b *bench) do(ctx context.Context) (int, error) {
	switch b.command {
	case "up":
		return b.keepUp(ctx)
	case "node":
		return b.checkNode(ctx)
	case "stay":
		if code, err := b.checkNode(ctx); err != nil {
			return code, err
		}
		<-ctx.Done()
		return 1, context.Cause(ctx)
	case "base":
		return b.checkBase(ctx)
	case "trials", "scale":
		return b.runTrials(ctx)
	case "ci":
		node, err := b.checkNode(ctx)
		if err != nil {
			return 1, err
		}
		base, err := b.checkBase(ctx)
		return max(node, base), err
	}
	return b.runSuites(ctx)
}

// imageTable is what runs for which image. The users are those that the images name.
func (o *options) imageTable() string {
	table := []string{
		"echo-basic=" + filepath.Join(o.binaries, "echo-basic"),
		"lwepp=" + filepath.Join(o.binaries, "lwepp") + "@65532",
		"coredns=" + filepath.Join(o.binaries, "coredns"),
		"digest-server=" + filepath.Join(o.binaries, "harness") + " digest",
		selftest.Programs,
	}
	if o.penstock != "" {
		table = append(table, "penstock="+o.penstock+"@65532")
		// Model servers of upstream's guides, and what fetches their adapters.
		for _, image := range []string{"vllm-openai", "llm-d-inference-sim"} {
			table = append(table, image+"="+o.penstock+" mock")
		}
		table = append(table, "alpine/git=/bin/true ")
	}
	if peer, ok := peers[o.peer]; ok {
		for image, program := range peer.programs {
			table = append(table, image+"="+filepath.Join(o.binaries, program))
		}
	}
	if o.programs != "" {
		table = append(table, o.programs)
	}
	return strings.Join(table, ",")
}

func (b *bench) keepUp(ctx context.Context) (int, error) {
	if err := b.install(ctx); err != nil {
		return 1, err
	}
	if b.peer == "" && !b.bare {
		loaded, err := digestOf(b.penstock)
		if err != nil {
			return 1, err
		}
		if err := os.WriteFile(filepath.Join(b.upDir(), loadedFile), []byte(loaded), 0o644); err != nil {
			return 1, err
		}
	}
	fmt.Println("the cluster is up; in another terminal: just kubectl get pods -A, or just in-cluster curl ...; Ctrl-C ends it")
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// keepLogs copies what the cluster wrote to where it outlives the cluster.
func (b *bench) keepLogs() error {
	for _, name := range []string{"cluster", "pods"} {
		if err := os.RemoveAll(filepath.Join(b.logs, name)); err != nil {
			return err
		}
	}
	from := map[string][]string{"cluster": {supervise.StateDir + "/*.log"}, "pods": {supervise.StateDir + "/agent/logs/*"}}
	for name, patterns := range from {
		dir := filepath.Join(b.logs, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, pattern := range patterns {
			files, err := filepath.Glob(pattern)
			if err != nil {
				return err
			}
			for _, file := range files {
				if err := copyFile(file, filepath.Join(dir, filepath.Base(file))); err != nil {
					return err
				}
			}
		}
	}
	fmt.Println("logs of the cluster, its audit log and every container:", b.logs)
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
