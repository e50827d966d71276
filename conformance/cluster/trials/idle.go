package trials

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/conformance/cluster/retry"
)

// idle looks for writes when there is nothing to write.
func idle(ctx context.Context, b Bed) error {
	// The images of upstream's pickers only sleep here, so that their probes restart them for ever.
	if _, err := b.Kubectl(ctx, "", "delete", "deployments", "--all", "-n", "default"); err != nil {
		return err
	}
	kinds, err := b.writable(ctx)
	if err != nil {
		return err
	}
	var before string
	err = retry.Until(ctx, patience, func() error {
		// What the trials before began comes to its end.
		if err := b.nothingLeaves(ctx); err != nil {
			return err
		}
		first, err := b.versions(ctx, kinds)
		if err != nil {
			return err
		}
		wait(ctx, 2*time.Second)
		before, err = b.versions(ctx, kinds)
		if err == nil && first != before {
			err = fmt.Errorf("the cluster does not come to rest:\n%s", difference(first, before))
		}
		return err
	})
	if err != nil {
		return err
	}
	wait(ctx, b.long(60*time.Second))
	after, err := b.versions(ctx, kinds)
	if err == nil && before != after {
		err = fmt.Errorf("something was written:\n%s", difference(before, after))
	}
	if err == nil {
		fmt.Printf("        %d objects of %d kinds, none written in %v\n", strings.Count(after, "\n"), len(kinds), b.long(60*time.Second))
	}
	return err
}

// writable are all kinds that the cluster serves, but Leases, which are there to be written, and events,
// which tell what others do.
func (b Bed) writable(ctx context.Context) ([]string, error) {
	text, err := b.Kubectl(ctx, "", "api-resources", "--verbs=list", "--output=name")
	kinds := slices.DeleteFunc(strings.Fields(text), func(kind string) bool {
		return slices.Contains([]string{"leases.coordination.k8s.io", "events", "events.events.k8s.io"}, kind)
	})
	if err == nil && len(kinds) < 40 {
		err = fmt.Errorf("the cluster names only the kinds %v", kinds)
	}
	return kinds, err
}

// nothingLeaves says an error while a namespace or a Pod is on its way out.
func (b Bed) nothingLeaves(ctx context.Context) error {
	leaving, err := b.Kubectl(ctx, "", "get", "namespaces,pods", "-A", "-o", `jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}`)
	if err == nil && leaving != "" {
		err = fmt.Errorf("still leaving: %s", leaving)
	}
	return err
}

// versions are those of all objects, one a line, sorted: the API server names the statuses of components
// in the order in which they answered.
func (b Bed) versions(ctx context.Context, kinds []string) (string, error) {
	text, err := b.Kubectl(ctx, "", "get", "-A", strings.Join(kinds, ","), "-o",
		`jsonpath={range .items[*]}{.apiVersion} {.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, ""), err
}

// difference are the lines of either that the other lacks.
func difference(before, after string) string {
	var lines []string
	for _, side := range []struct{ mark, text, other string }{{"- ", before, after}, {"+ ", after, before}} {
		known := strings.Split(side.other, "\n")
		for _, line := range strings.Split(side.text, "\n") {
			if !slices.Contains(known, line) {
				lines = append(lines, side.mark+line)
			}
		}
	}
	return strings.Join(lines, "\n")
}
