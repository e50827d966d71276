package trials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"penstock/conformance/cluster/retry"
)

const pickers = "pickers"

// pickerRights let upstream's picker read its pool.
const pickerRights = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: picker, namespace: pickers}
rules:
  - {apiGroups: [inference.networking.k8s.io], resources: [inferencepools], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: picker, namespace: pickers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: picker}
subjects: [{kind: ServiceAccount, name: default, namespace: pickers}]
`

// digestServers say the digest of what they receive, see the harness's digest.go.
const digestServers = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: digests, namespace: pickers}
spec:
  replicas: 2
  selector: {matchLabels: {app: digests}}
  template:
    metadata: {labels: {app: digests}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: digest
          image: digest-server
          env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
          ports: [{containerPort: 8000}]
`

// pickedPool is a pool with upstream's picker, as a command line of its own names it, and the route to it.
func pickedPool(name, app, mode, protocol string) string {
	return strings.NewReplacer("NAME", name, "APP", app, "MODE", mode, "PROTOCOL", protocol).Replace(`---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: NAME, namespace: pickers}
spec:
  selector: {matchLabels: {app: APP}}
  targetPorts: [{number: 8000}]
  appProtocol: PROTOCOL
  endpointPickerRef: {name: NAME-picker, port: {number: 9002}, failureMode: MODE}
---
apiVersion: v1
kind: Service
metadata: {name: NAME-picker, namespace: pickers}
spec: {selector: {app: NAME-picker}, ports: [{port: 9002, targetPort: 9002, appProtocol: http2}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME-picker, namespace: pickers}
spec:
  selector: {matchLabels: {app: NAME-picker}}
  template:
    metadata: {labels: {app: NAME-picker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: picker
          image: lwepp
          args: [--pool-name, NAME, --pool-namespace, pickers, --grpc-port, "9002", --grpc-health-port, "9003"]
          ports: [{containerPort: 9002}, {containerPort: 9003}]
          readinessProbe: {grpc: {port: 9003, service: inference-extension}, periodSeconds: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: pickers}
spec:
  parentRefs: [{name: gateway}]
  rules:
    - matches: [{headers: [{name: pool, value: NAME}]}]
      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: NAME}]
`)
}

// Pools of model servers and of digest servers, some of which no answer may come from without their picker.
var picked = namespaceManifest(pickers) + gatewayManifest(pickers, "gateway", "penstock", "") + pickerRights + digestServers +
	serversManifest(pickers, 2) + pickedPool("closed", "servers", "FailClose", "http") + pickedPool("open", "digests", "FailOpen", "http") +
	pickedPool("calls", "digests", "FailClose", "kubernetes.io/h2c")

// upstreamPicker uses pools whose endpoints upstream's own picker chooses, and then kills the pickers.
func upstreamPicker(ctx context.Context, b Bed) error {
	if err := b.apply(ctx, picked); err != nil {
		return err
	}
	if err := b.rolledOut(ctx, pickers, "servers", "digests", "closed-picker", "open-picker", "calls-picker"); err != nil {
		return err
	}
	address, err := b.address(ctx, pickers, "gateway")
	if err != nil {
		return err
	}
	for _, holds := range []func(context.Context, string) error{b.chooses, b.keeps, callsTrail, survives} {
		if err := holds(ctx, address); err != nil {
			return err
		}
	}
	_, err = b.Kubectl(ctx, "", "delete", "namespace/"+pickers, "--wait=false")
	return err
}

// chooses checks that questions with a body are answered by the endpoint of the picker's choice.
func (b Bed) chooses(ctx context.Context, address string) error {
	question := fmt.Appendf(nil, `{"model":%q,"max_tokens":5,"messages":[{"role":"user","content":"Hello"}]}`, model)
	err := retry.Until(ctx, patience, func() error {
		answer, err := send(ctx, address, "closed", "", question)
		if err == nil && !strings.Contains(answer.body, `"role":"assistant"`) {
			err = fmt.Errorf("no answer of a model server: %s", answer.body)
		}
		return err
	})
	if err != nil {
		return err
	}
	ips, err := b.pods(ctx, pickers, "app=digests")
	if err != nil || len(ips) != 2 {
		return fmt.Errorf("digest servers: %v %w", ips, err)
	}
	body := numbers(1 << 20)
	return retry.Until(ctx, patience, func() error {
		for range 5 {
			for _, ip := range ips {
				answer, err := send(ctx, address, "open", ip, body)
				if err != nil {
					return err
				}
				if err := answer.tells(body); err != nil {
					return err
				}
				if !strings.Contains(answer.body, `"address":"`+ip+`"`) {
					return fmt.Errorf("the picker was asked for %s, but %s answered", ip, answer.body)
				}
			}
		}
		return nil
	})
}

// canaries keeps questions that want one to digest servers with a label; upstream's picker takes no other then.
const canaries = `---
apiVersion: penstock.dev/v1alpha1
kind: PoolPolicy
metadata: {name: canaries, namespace: pickers}
spec:
  targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: open}]
  subsets: [{matchLabels: {NAME: canary}, headers: [{name: Tier, value: canary}]}]
`

// keeps checks that a label of a living server, and the one that has it then, is what questions are kept to.
func (b Bed) keeps(ctx context.Context, address string) error {
	// No name of a label, which the definition cannot tell.
	for _, policy := range [][2]string{{"t i e r", "False"}, {"tier", "True"}} {
		if err := b.apply(ctx, strings.Replace(canaries, "NAME", policy[0], 1)); err != nil {
			return err
		}
		if _, err := b.Kubectl(ctx, "", "wait", "-n", pickers, "--for=condition=Accepted="+policy[1], "--timeout="+patience.String(), "poolpolicy/canaries"); err != nil {
			return err
		}
	}
	ips, err := b.pods(ctx, pickers, "app=digests")
	if err != nil {
		return err
	}
	for _, ip := range ips {
		if _, err := b.Kubectl(ctx, "", "label", "pods", "-n", pickers, "-l", "app=digests", "tier-"); err != nil {
			return err
		}
		if _, err := b.Kubectl(ctx, "", "label", "pods", "-n", pickers, "--field-selector=status.podIP="+ip, "tier=canary"); err != nil {
			return err
		}
		if err := retry.Until(ctx, patience, func() error { return keptTo(ctx, address, ip) }); err != nil {
			return err
		}
	}
	return nil
}

// keptTo asks for canaries and wants that upstream's picker, which takes turns, always picks this one.
func keptTo(ctx context.Context, address, ip string) error {
	for range 10 {
		request, err := questionFor(ctx, address, "open", "", []byte(`{"model":"any"}`))
		if err != nil {
			return err
		}
		request.Header.Set("Tier", "canary")
		answer, err := answerTo(client, request)
		if err != nil {
			return err
		}
		if answer.served == "" || !strings.Contains(answer.body, `"address":"`+ip+`"`) {
			return fmt.Errorf("questions are kept to %s, but %s answered, picked as %q", ip, answer.body, answer.served)
		}
	}
	return nil
}

// callsTrail checks that trailers come through behind a picker, of which gRPC's status is one.
func callsTrail(ctx context.Context, address string) error {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body := append([]byte{0, 0, 0, 0, 5}, "Hello"...)
	return retry.Until(ctx, patience, func() error {
		request, err := questionFor(ctx, address, "calls", "", body)
		if err != nil {
			return err
		}
		request.URL.Path = "/digest.Digests/Of"
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("TE", "trailers")
		answer, err := answerTo(&http.Client{Transport: transport, Timeout: 30 * time.Second}, request)
		if err != nil {
			return err
		}
		if answer.trailer.Get("Grpc-Status") != "0" || answer.trailer.Get("X-Digest") != digestOf(body) {
			return fmt.Errorf("wrong trailers: %v", answer.trailer)
		}
		return nil
	})
}

// survives checks what becomes of questions that the picker cannot take or is not there for.
func survives(ctx context.Context, address string) error {
	large := numbers(20 << 20)
	// More than upstream's picker takes, which then gives up.
	if err := intact(ctx, address, large); err != nil {
		return fmt.Errorf("a body that is too large for the picker: %w", err)
	}
	deaths, stop := context.WithCancel(ctx)
	var dying sync.WaitGroup
	defer dying.Wait()
	defer stop()
	for _, pool := range []string{"closed", "open"} {
		if err := killAll("", "--pool-name", pool); err != nil {
			return err
		}
		dying.Go(func() { keepKilled(deaths, "--pool-name", pool) })
	}
	// From the moment of death on, of which nobody knows yet, until everybody does.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if err := intact(ctx, address, large); err != nil {
			return fmt.Errorf("a dead picker and FailOpen: %w", err)
		}
		answer, err := send(ctx, address, "closed", "", []byte(`{"model":"any"}`))
		if err == nil || answer.status != http.StatusServiceUnavailable || !strings.Contains(answer.body, "picker_") {
			return fmt.Errorf("a dead picker and FailClose: status %d: %s", answer.status, answer.body)
		}
	}
	return nil
}

// keepKilled kills whatever has these words in its command line, as soon as it appears.
func keepKilled(ctx context.Context, words ...string) {
	for ctx.Err() == nil {
		_ = killAll("", words...) // mostly there is none
		wait(ctx, 10*time.Millisecond)
	}
}

// intact sends a body to the pool that serves without its picker, and wants its digest.
func intact(ctx context.Context, address string, body []byte) error {
	answer, err := send(ctx, address, "open", "", body)
	if err != nil {
		return err
	}
	return answer.tells(body)
}

type answer struct {
	status  int
	body    string
	served  string // what upstream's picker was told of who served
	trailer http.Header
}

// tells says an error unless the answer has the digest of a body.
func (a answer) tells(body []byte) error {
	var told struct{ SHA256 string }
	if err := json.Unmarshal([]byte(a.body), &told); err != nil {
		return err
	}
	if told.SHA256 != digestOf(body) {
		return fmt.Errorf("the server received another body: %s", a.body)
	}
	return nil
}

// questionFor is a question for a pool; one with an address asks upstream's picker for it.
func questionFor(ctx context.Context, address, pool, endpoint string, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+address+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Pool", pool)
	request.Header.Set("Content-Type", "application/json")
	if endpoint != "" {
		request.Header.Set("test-epp-endpoint-selection", endpoint)
	}
	return request, nil
}

// send asks; a status other than 200 is an error, with the answer beside it.
func send(ctx context.Context, address, pool, endpoint string, body []byte) (answer, error) {
	request, err := questionFor(ctx, address, pool, endpoint, body)
	if err != nil {
		return answer{}, err
	}
	return answerTo(client, request)
}

func answerTo(client *http.Client, request *http.Request) (answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	served := response.Header.Get("X-Conformance-Test-Served-Endpoint")
	return answer{response.StatusCode, string(body), served, response.Trailer}, err
}

// numbers is JSON of about a length, of which no part is like another.
func numbers(length int) []byte {
	text := []byte(`{"model":"any","numbers":[0`)
	for number := 1; len(text) < length; number++ {
		text = fmt.Appendf(text, ",%d", number)
	}
	return append(text, "]}"...)
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
