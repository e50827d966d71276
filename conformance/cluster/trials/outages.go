package trials

import (
	"context"
	"fmt"
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

// leaver is a Pod that takes some seconds to end.
const leaver = `---
apiVersion: v1
kind: Pod
metadata: {name: leaver, namespace: outages}
spec:
  terminationGracePeriodSeconds: 30
  containers: [{name: pause, image: pause, lifecycle: {preStop: {sleep: {seconds: 3}}}}]
`

// staged applies the stage, waits until it answers, and returns where.
func (b Bed) staged(ctx context.Context) (string, error) {
	if err := b.apply(ctx, stage); err != nil {
		return "", err
	}
	if err := b.rolledOut(ctx, outages, "servers"); err != nil {
		return "", err
	}
	address, err := b.address(ctx, outages, "gateway")
	if err != nil {
		return "", err
	}
	return address, retry.Until(ctx, patience, func() error { return chat(ctx, address, model) })
}

// underLoad runs what with questions coming in all the time, from before it to after it; killed says that
// it kills servers.
func underLoad(ctx context.Context, b Bed, killed bool, what func(context.Context) error) error {
	address, err := b.staged(ctx)
	if err != nil {
		return err
	}
	return loaded(ctx, address, model, killed, what)
}

// loaded does what underLoad does where somebody has set the stage, with questions for a model.
func loaded(ctx context.Context, address, model string, killed bool, what func(context.Context) error) error {
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

// blackout kills the controllers and the API server, and meanwhile half of the model servers. A Pod that
// ends meanwhile is gone afterwards.
func blackout(ctx context.Context, b Bed) error {
	return underLoad(ctx, b, true, func(ctx context.Context) error {
		ips, err := b.pods(ctx, outages, servers)
		if err != nil {
			return err
		}
		if len(ips) != 6 {
			return fmt.Errorf("there are %d servers, not 6", len(ips))
		}
		if err := b.beginToLeave(ctx); err != nil {
			return err
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
		if _, err := b.Kubectl(ctx, "", "wait", "-n", outages, "pod/leaver", "--for=delete", "--timeout="+patience.String()); err != nil {
			return err
		}
		return b.rolledOut(ctx, controllers, "penstock-controller")
	})
}

// beginToLeave starts the leaver and has it deleted, but not yet gone.
func (b Bed) beginToLeave(ctx context.Context) error {
	if err := b.apply(ctx, leaver); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "", "wait", "-n", outages, "pod/leaver", "--for=condition=Ready", "--timeout="+patience.String()); err != nil {
		return err
	}
	_, err := b.Kubectl(ctx, "", "delete", "-n", outages, "pod/leaver", "--wait=false")
	return err
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
			if err := b.apply(ctx, changing(fmt.Sprintf("/other-%d", number))); err != nil {
				return err
			}
			wait(ctx, time.Second)
		}
		_, err := b.Kubectl(ctx, "", "delete", "httproute/other", "-n", outages)
		return err
	})
}
