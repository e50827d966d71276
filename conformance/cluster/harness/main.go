// The harness: starts a cluster as processes, runs the upstream conformance suites in it and ends it
// without a trace. The same program is also the parts that are simulated: the node's agent, the
// first process of a container, and stand-ins for three images. See ../../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"penstock/conformance/cluster/agent"
	"penstock/conformance/cluster/sandbox"
	"penstock/conformance/cluster/supervise"
)

const usage = `usage: harness up | node | stay | base | ci | interrupt | trials | scale | run SUITE... | again SUITE --test NAME [flags]

up        keep a cluster running until Ctrl-C
node      check what the simulated node promises to Pods
stay      the same, and then stay until somebody ends it
base      show that the suites' base manifests become ready, without any gateway
ci        node and base in one cluster
interrupt show that a run leaves nothing behind, whoever ends it
scale     how fast many routes are served, and what they cost
trials    upstream's guides and what no suite tests, with our gateway
run       run the suites
again     run one test in the cluster that up keeps, from inside it, with the product as it is now

`

func main() {
	if filepath.Base(os.Args[0]) == "coredns" {
		os.Exit(answerAnything())
	}
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "up", "node", "stay", "base", "ci", "trials", "scale", "run":
		os.Exit(outside(os.Args[1:]))
	case "interrupt":
		os.Exit(interrupt(os.Args[1:]))
	case "again":
		os.Exit(again(os.Args[1:]))
	case "first":
		os.Exit(supervise.First(append([]string{"inside"}, os.Args[2:]...)))
	case "inside":
		os.Exit(inside(os.Args[2:]))
	case "agent":
		os.Exit(runAgent(os.Args[2:]))
	case "container":
		sandbox.Enter()
	case "digest":
		os.Exit(serveDigests())
	case "sleep":
		<-untilSignal().Done()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(supervise.ExitUsage)
	}
}

// outside checks the arguments and moves into namespaces of its own.
func outside(arguments []string) int {
	options, err := parseOptions(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return supervise.ExitUsage
	}
	lock, err := lockLogs(options.logs)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer lock.Close()
	pidFile := filepath.Join(options.logs, "pid")
	defer os.Remove(pidFile)
	return supervise.Outside(arguments, func(pid int) error {
		return os.WriteFile(pidFile, fmt.Appendln(nil, pid), 0o644)
	})
}

// lockLogs makes the directory of the logs this run's alone, until the file is closed.
func lockLogs(logs string) (*os.File, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(logs, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		lock.Close()
		return nil, fmt.Errorf("another run is under way (process %s holds %s): wait for it or end it", readPid(logs), lock.Name())
	}
	return lock, nil
}

func readPid(logs string) string {
	data, err := os.ReadFile(filepath.Join(logs, "pid"))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}

func untilSignal() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	return ctx
}

func runAgent(arguments []string) int {
	flags := flag.NewFlagSet("agent", flag.ExitOnError)
	var config agent.Config
	flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "how to reach the API server")
	flags.StringVar(&config.State, "state", "", "directory for logs and volumes")
	flags.StringVar(&config.Node, "node", "", "name of the node")
	flags.StringVar(&config.HostIP, "host-ip", "", "address of the node")
	programs := flags.String("programs", "", "what runs for which image: IMAGE-SUBSTRING=PATH[@UID],...")
	_ = flags.Parse(arguments) // it exits by itself
	var err error
	if config.Programs, err = agent.ParsePrograms(*programs); err == nil {
		err = agent.Run(untilSignal(), config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 1
	}
	return 0
}
