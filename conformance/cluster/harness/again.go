package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock/conformance/cluster/supervise"
)

// In the cluster that `up` keeps, the product's image stands for a copy of the binary, which `again`
// replaces; loadedFile beside it says what the Pods run.
const loadedFile = "loaded"

// upDir is where `up` has its logs.
func (o *options) upDir() string { return filepath.Join(o.data, "up") }

// again runs one test in the cluster that `up` keeps; the script enters the cluster first.
func again(arguments []string) int {
	o, err := parseOptions(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return supervise.ExitUsage
	}
	lock, err := lockLogs(o.logs)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer lock.Close()
	b := &bench{options: o, attached: true, cluster: supervise.Attach(supervise.Options{Binaries: o.binaries})}
	code, err := b.runSuites(untilSignal())
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		return 1
	}
	return code
}

// reload makes all Pods of the product run what it is now.
func (b *bench) reload(ctx context.Context) error {
	now, err := digestOf(b.penstock)
	if err != nil {
		return err
	}
	loaded := filepath.Join(b.upDir(), loadedFile)
	if before, err := os.ReadFile(loaded); err == nil && string(before) == now {
		fmt.Println("the Pods run this binary already")
		return nil
	}
	began := time.Now()
	// Running processes keep the file that they have.
	copied := filepath.Join(b.upDir(), "penstock")
	if err := copyFile(b.penstock, copied+".new"); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(copied+".new", 0o755), os.Rename(copied+".new", copied)); err != nil {
		return err
	}
	text, err := b.cluster.Kubectl(ctx, "", "get", "deployments", "-A", "-l", "app.kubernetes.io/name=penstock",
		"-o", `jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}`)
	if err != nil {
		return err
	}
	deployments := strings.Split(strings.TrimSpace(text), "\n")
	for _, arguments := range [][]string{{"restart"}, {"status", "--timeout=" + deployDeadline.String()}} {
		for _, deployment := range deployments {
			namespace, name, _ := strings.Cut(deployment, " ")
			_, err := b.cluster.Kubectl(ctx, "", slices.Concat([]string{"rollout"}, arguments, []string{"-n", namespace, "deployment/" + name})...)
			// The proxies of a test that was ended may be on their way out.
			if err != nil && !strings.Contains(err.Error(), "has been deleted") && !strings.Contains(err.Error(), "not found") {
				return err
			}
		}
	}
	fmt.Printf("%d Deployments run the binary of %s after %.1f s\n", len(deployments), modified(b.penstock), time.Since(began).Seconds())
	return os.WriteFile(loaded, []byte(now), 0o644)
}

func digestOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	return hex.EncodeToString(hash.Sum(nil)), err
}

func modified(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "an unknown time"
	}
	return info.ModTime().Format(time.TimeOnly)
}
