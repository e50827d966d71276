// Package trials tests our gateway in a running cluster where no upstream suite looks: upstream's own
// example manifests, outages under load, and what the documentation promises.
package trials

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kubectl runs a command as the administrator.
type Kubectl func(ctx context.Context, input string, arguments ...string) (string, error)

// Bed is the cluster, with our gateway in it.
type Bed struct {
	Kubectl    Kubectl
	Guides     string // upstream's manifests and rendered charts
	Only       string // trials, with commas in between, or all
	Long       bool   // the times that were promised, not those that fit into every run
	Repo       string // the clone
	Binaries   string // where controlplane is
	Penstock   string // the product's binary
	Kubeconfig string // the administrator's
	Cluster    Outages
	Identities func() error // says an error if one of our Pods spoke to the API server as whom it should not, or was refused
}

// Outages are what can be done to the cluster itself.
type Outages interface {
	StopAPIServer()
	StartAPIServer(ctx context.Context) error
}

type trial struct {
	name    string
	promise string
	holds   func(context.Context, Bed) error
}

// They share one cluster, in this order.
var all = []trial{
	{"getting-started", "the manifests of getting started end in chat answers, with each of their model servers", gettingStarted},
	{"adapter-rollout", "the adapter rollout guide splits one name over two adapters", adapterRollout},
	{"pool-rollout", "the pool rollout guide moves requests from one pool to another", poolRollout},
	{"multiple-pools", "the multiple pools guide finds the pool by the base model of what is asked for", multiplePools},
	{"v0.5.1", "InferenceModels and their pool of v0.5.1 choose the adapter", oldModels},
	{"parents", "a route on two Gateways of ours and one of others has our entries right and the others' untouched", manyParents},
	{"blackout", "without controllers and API server, and with half of the model servers killed, no unsent question fails", blackout},
	{"restarts", "a rolling restart of all servers and of all proxies fails no question", restarts},
	{"route-changes", "a route that changes every second fails no question elsewhere", routeChanges},
	{"drift", "changes by hand are undone, but for the number of proxies; every address asked for is served", drift},
	{"leader", "the controller that writes is killed: a route changed meanwhile is served and judged, and no question fails", leader},
	{"pickers", "upstream's picker chooses for pools; when it is dead, FailOpen loses no byte and FailClose says so", upstreamPicker},
	{"definitions", "definitions that are deleted in use fail no question, and are used again once they are back", definitions},
	{"idle", "at rest nothing is written but Leases", idle},
	{"documentation", "docs/kubernetes.md does what it says, from pool to uninstall", documentation},
	{"identities", "all that was asked of the API server was asked under the controller's own account, and allowed", identities},
}

// patience bounds each step. All take a few seconds, unless the machine is busy elsewhere.
const patience = 90 * time.Second

// identities looks at what all trials before it did.
func identities(_ context.Context, b Bed) error { return b.Identities() }

// Run runs the trials and reports each.
func Run(ctx context.Context, bed Bed) (passed, failed int, err error) {
	for _, t := range all {
		if bed.Only != "" && !slices.Contains(strings.Split(bed.Only, ","), t.name) {
			continue
		}
		if ctx.Err() != nil {
			return passed, failed, context.Cause(ctx)
		}
		began := time.Now()
		if err := t.holds(ctx, bed); err != nil {
			failed++
			fmt.Printf("FAILED  %s: %s (%.1f s):\n  %v\n", t.name, t.promise, time.Since(began).Seconds(), err)
			continue
		}
		passed++
		fmt.Printf("passed  %s: %s (%.1f s)\n", t.name, t.promise, time.Since(began).Seconds())
	}
	if passed+failed == 0 {
		return 0, 0, fmt.Errorf("there is no trial %q", bed.Only)
	}
	return passed, failed, nil
}
