package trials

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The numbers of the measurement.
const (
	scaleRoutes   = 1000
	scaleGateways = 10
	scaleSamples  = 50
	clockTicks    = 100 // a second, in /proc/PID/stat
)

// field is ten Gateways, of which the first has a proxy; the others get none, see below.
func field() string {
	text := namespaceManifest("scale") + serversManifest("scale", 2) + `---
apiVersion: penstock.dev/v1alpha1
kind: GatewayParameters
metadata: {name: real, namespace: scale}
spec: {replicas: 1}
---
apiVersion: v1
kind: Service
metadata: {name: servers, namespace: scale}
spec: {selector: {app: servers}, ports: [{port: 80, targetPort: 8000}]}
`
	for number := range scaleGateways {
		text += gatewayManifest("scale", fmt.Sprintf("gateway-%d", number), "penstock",
			", infrastructure: {parametersRef: {group: penstock.dev, kind: GatewayParameters, name: real}}")
	}
	return text
}

// cluster is the API server, asked without the start of a program for each question.
type cluster struct {
	client *http.Client
	host   string
}

const routesPath = "/apis/gateway.networking.k8s.io/v1/namespaces/scale/httproutes"

func newCluster(kubeconfig string) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(config)
	return &cluster{client, config.Host}, err
}

func (c *cluster) do(ctx context.Context, method, path, kind, body string) error {
	request, err := http.NewRequestWithContext(ctx, method, c.host+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: status %d: %s", method, path, response.StatusCode, text)
	}
	return err
}

// create makes a route of a path to the servers, on one of the Gateways.
func (c *cluster) create(ctx context.Context, name string, gateway int) error {
	return c.do(ctx, "POST", routesPath, "application/json", fmt.Sprintf(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":%q},
"spec":{"parentRefs":[{"name":"gateway-%d"}],"rules":[{"matches":[{"path":{"type":"PathPrefix","value":"/%s"}}],
"filters":[{"type":"URLRewrite","urlRewrite":{"path":{"type":"ReplaceFullPath","replaceFullPath":"/health"}}}],
"backendRefs":[{"name":"servers","port":80}]}]}}`, name, gateway, name))
}

// Scale measures how fast routes are served, and what many of them cost.
func Scale(ctx context.Context, b Bed) error {
	if err := b.apply(ctx, field()); err != nil {
		return err
	}
	if err := b.rolledOut(ctx, "scale", "servers"); err != nil {
		return err
	}
	address, err := b.address(ctx, "scale", "gateway-0")
	if err != nil {
		return err
	}
	// What a person scales stays so: statuses without proxies.
	for number := 1; number < scaleGateways; number++ {
		name := fmt.Sprintf("gateway-%d", number)
		if _, err := b.address(ctx, "scale", name); err != nil {
			return err
		}
		if _, err := b.Kubectl(ctx, "", "scale", "-n", "scale", "deployment/"+name+"-penstock", "--replicas=0"); err != nil {
			return err
		}
	}
	api, err := newCluster(b.Kubeconfig)
	if err != nil {
		return err
	}
	made := 0
	for _, count := range []int{10, scaleRoutes} {
		if err := api.fill(ctx, made, count); err != nil {
			return err
		}
		made = count
		if err := served(ctx, address, fmt.Sprintf("route-%d", count-scaleGateways)); err != nil {
			return err
		}
		wait(ctx, 3*time.Second)
		if err := b.propagation(ctx, api, address, count); err != nil {
			return err
		}
	}
	return b.costs(ctx, api)
}

// fill makes routes until there are count, a tenth of them on each Gateway.
func (c *cluster) fill(ctx context.Context, made, count int) error {
	var making sync.WaitGroup
	errors := make([]error, 8)
	for worker := range errors {
		making.Go(func() {
			for number := made + worker; number < count && errors[worker] == nil; number += len(errors) {
				errors[worker] = c.create(ctx, fmt.Sprintf("route-%d", number), number%scaleGateways)
			}
		})
	}
	making.Wait()
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}

// served waits until a path is answered with 200.
func served(ctx context.Context, address, path string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+"/"+path, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func (b Bed) propagation(ctx context.Context, api *cluster, address string, count int) error {
	var times []time.Duration
	for sample := range scaleSamples {
		name := fmt.Sprintf("new-%d-%d", count, sample)
		began := time.Now()
		if err := api.create(ctx, name, 0); err != nil {
			return err
		}
		if err := served(ctx, address, name); err != nil {
			return err
		}
		times = append(times, time.Since(began))
		if err := api.do(ctx, "DELETE", routesPath+"/"+name, "application/json", ""); err != nil {
			return err
		}
		wait(ctx, 100*time.Millisecond)
	}
	slices.Sort(times)
	fmt.Printf("%d routes: from creating another to its first 200, with the API server's part: p50 %.1f ms, p99 %.1f ms (%d samples)\n",
		count, milliseconds(times[len(times)/2]), milliseconds(times[len(times)*99/100]), len(times))
	return nil
}

func milliseconds(long time.Duration) float64 { return float64(long.Microseconds()) / 1000 }

func (b Bed) costs(ctx context.Context, api *cluster) error {
	proxies, err := processes("", "penstock", "proxy")
	if err != nil || len(proxies) != 1 {
		return fmt.Errorf("there are %d proxies, not 1; %w", len(proxies), err)
	}
	memory, err := residentMB(proxies[0])
	if err != nil {
		return err
	}
	fmt.Printf("proxy with %d of %d routes: %.1f MB resident\n", scaleRoutes/scaleGateways, scaleRoutes, memory)
	controllers, err := processes("", "penstock", "controller")
	if err != nil {
		return err
	}
	for _, pid := range controllers {
		memory, err := residentMB(pid)
		if err != nil {
			return err
		}
		fmt.Printf("controller with %d routes: %.1f MB resident\n", scaleRoutes, memory)
	}
	wait(ctx, 5*time.Second)
	rest, err := cpuPercent(controllers, func() error { wait(ctx, 10*time.Second); return nil })
	if err != nil {
		return err
	}
	busy, err := cpuPercent(controllers, func() error {
		for change := range 100 {
			began := time.Now()
			patch := fmt.Sprintf(`{"metadata":{"labels":{"change":"%d"}},"spec":{"hostnames":["host-%d.example"]}}`, change, change)
			if err := api.do(ctx, "PATCH", fmt.Sprintf("%s/route-%d", routesPath, change), "application/merge-patch+json", patch); err != nil {
				return err
			}
			wait(ctx, 100*time.Millisecond-time.Since(began))
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("controllers (%d replicas together): %.1f %% of a core at rest, %.1f %% at 10 route changes a second\n", len(controllers), rest, busy)
	return nil
}

func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("process %d tells no memory", pid)
	}
	kilobytes, err := strconv.ParseFloat(fields[0], 64)
	return kilobytes / 1024, err
}

// cpuPercent is how much of a core processes take while something is done.
func cpuPercent(pids []int, while func() error) (float64, error) {
	before, err := ticks(pids)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := while(); err != nil {
		return 0, err
	}
	after, err := ticks(pids)
	return float64(after-before) / clockTicks / time.Since(began).Seconds() * 100, err
}

func ticks(pids []int) (int, error) {
	total := 0
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return 0, err
		}
		// The name, in parentheses, may have spaces.
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, fmt.Errorf("process %d tells no times", pid)
		}
		for _, field := range fields[11:13] {
			number, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			total += number
		}
	}
	return total, nil
}
