package trials

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"penstock/conformance/cluster/retry"
)

const (
	outages = "outages"
	servers = "app=servers"
)

// stage is a gateway with a pool of six servers, for load.
var stage = namespaceManifest(outages) + gatewayManifest(outages, "gateway", "penstock", "") + serversManifest(outages, 6) + `---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: servers, namespace: outages}
spec: {selector: {matchLabels: {app: servers}}, targetPorts: [{number: 8000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: outages}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: servers}]}]
`

// underLoad runs what with questions coming in all the time, from before it to after it; killed says that
// it kills servers.
func underLoad(ctx context.Context, b Bed, killed bool, what func(context.Context) error) error {
	if err := b.apply(ctx, stage); err != nil {
		return err
	}
	if err := b.rolledOut(ctx, outages, "servers"); err != nil {
		return err
	}
	address, err := b.address(ctx, outages, "gateway")
	if err != nil {
		return err
	}
	if err := retry.Until(ctx, patience, func() error { return chat(ctx, address, model) }); err != nil {
		return err
	}
	load := startLoad(ctx, address, model, killed)
	wait(ctx, time.Second)
	happened := what(ctx)
	wait(ctx, time.Second)
	if err := load.end(); err != nil {
		return err
	}
	return happened
}

func wait(ctx context.Context, long time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(long):
	}
}

// long is a time that was promised; a tenth of it fits into every run.
func (b Bed) long(promised time.Duration) time.Duration {
	if b.Long {
		return promised
	}
	return promised / 10
}

// blackout kills the controllers and the API server, and meanwhile half of the model servers.
func blackout(ctx context.Context, b Bed) error {
	return underLoad(ctx, b, true, func(ctx context.Context) error {
		ips, err := b.pods(ctx, outages, servers)
		if err != nil {
			return err
		}
		if len(ips) != 6 {
			return fmt.Errorf("there are %d servers, not 6", len(ips))
		}
		began := time.Now()
		b.Cluster.StopAPIServer()
		if err := killAll("", "penstock", "controller"); err != nil {
			return err
		}
		var watching sync.WaitGroup
		used := make([]error, 3)
		for number, ip := range ips[:3] {
			if err := killAll(ip, "mock", model); err != nil {
				return err
			}
			watching.Go(func() { used[number] = usedAgain(ctx, ip) })
		}
		watching.Wait()
		wait(ctx, b.long(120*time.Second)-time.Since(began))
		fmt.Printf("        %.0f s without API server and controllers\n", time.Since(began).Seconds())
		if err := b.Cluster.StartAPIServer(ctx); err != nil {
			return err
		}
		for _, err := range used {
			if err != nil {
				return err
			}
		}
		return b.rolledOut(ctx, "penstock-system", "penstock-controller")
	})
}

// usedAgain says an error unless a server that was killed gets questions within 5 s of being ready.
func usedAgain(ctx context.Context, ip string) error {
	url := "http://" + ip + ":8000"
	if err := retry.Until(ctx, patience, func() error { return ask(ctx, "GET", url+"/health", nil, nil) }); err != nil {
		return fmt.Errorf("server %s did not come back: %w", ip, err)
	}
	ready := time.Now()
	err := retry.Until(ctx, patience, func() error {
		var told struct{ Requests []struct{ Method string } }
		if err := ask(ctx, "GET", url+"/mock/requests", nil, &told); err != nil {
			return err
		}
		for _, request := range told.Requests {
			if request.Method == "POST" {
				return nil
			}
		}
		return fmt.Errorf("no question")
	})
	if took := time.Since(ready); err != nil || took > 5*time.Second {
		return fmt.Errorf("server %s got no question within 5 s of being ready but after %v: %w", ip, took, err)
	}
	return nil
}

// restarts replaces all servers, and then all proxies, and waits until the old ones have left.
func restarts(ctx context.Context, b Bed) error {
	return underLoad(ctx, b, false, func(ctx context.Context) error {
		for _, deployment := range []struct{ name, selector string }{
			{"servers", servers}, {"gateway-penstock", "gateway.networking.k8s.io/gateway-name=gateway"},
		} {
			if _, err := b.Kubectl(ctx, "", "rollout", "restart", "-n", outages, "deployment/"+deployment.name); err != nil {
				return err
			}
			if err := b.rolledOut(ctx, outages, deployment.name); err != nil {
				return err
			}
			if err := b.left(ctx, outages, deployment.selector); err != nil {
				return err
			}
		}
		return nil
	})
}

// routeChanges changes another route of the same Gateway again and again.
func routeChanges(ctx context.Context, b Bed) error {
	return underLoad(ctx, b, false, func(ctx context.Context) error {
		end := time.Now().Add(b.long(100 * time.Second))
		for number := 0; time.Now().Before(end); number++ {
			route := fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: other, namespace: outages},
spec: {parentRefs: [{name: gateway}], rules: [{matches: [{path: {value: /other-%d}}],
filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example}}]}]}}`, number)
			if err := b.apply(ctx, route); err != nil {
				return err
			}
			wait(ctx, time.Second)
		}
		_, err := b.Kubectl(ctx, "", "delete", "httproute/other", "-n", outages)
		return err
	})
}

// idle looks for writes when there is nothing to write.
func idle(ctx context.Context, b Bed) error {
	wait(ctx, 3*time.Second) // what the trials before began comes to its end
	var before string
	err := retry.Until(ctx, patience, func() error {
		first, err := b.versions(ctx)
		if err != nil {
			return err
		}
		wait(ctx, 2*time.Second)
		before, err = b.versions(ctx)
		if err == nil && first != before {
			err = fmt.Errorf("the cluster does not come to rest:\n%s", difference(first, before))
		}
		return err
	})
	if err != nil {
		return err
	}
	wait(ctx, b.long(60*time.Second))
	after, err := b.versions(ctx)
	if err == nil && before != after {
		err = fmt.Errorf("something was written:\n%s", difference(before, after))
	}
	return err
}

// versions are those of everything that we could write, but Leases.
//
// The pickers of upstream's guides sleep, so their Pods never come to rest; and some trials leave
// namespaces behind that are still on their way out.
func (b Bed) versions(ctx context.Context) (string, error) {
	kinds := "gatewayclasses,gateways,httproutes,backendtlspolicies,inferencepools.inference.networking.k8s.io," +
		"inferencepools.inference.networking.x-k8s.io,inferencemodels,inferenceobjectives.inference.networking.x-k8s.io,gatewayparameters," +
		"services,configmaps,secrets,serviceaccounts,deployments.apps,endpointslices.discovery.k8s.io,pods"
	text, err := b.Kubectl(ctx, "", "get", "-A", kinds, "-o", `jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
	lines := strings.SplitAfter(text, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, "-epp") || strings.Contains(line, " drift/") || strings.Contains(line, " parents/")
	})
	return strings.Join(lines, ""), err
}

func difference(before, after string) string {
	var lines []string
	for _, line := range strings.Split(after, "\n") {
		if !strings.Contains(before, line+"\n") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
