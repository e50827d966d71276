// Package selftest checks in a running cluster what the node's agent promises to Pods. A gateway
// that fails a conformance suite here may then look for the fault in itself.
package selftest

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"penstock/conformance/cluster/retry"
)

//go:embed manifests.yaml
var manifests string

// Programs are what the manifests' images need beside the usual ones.
const Programs = "shell=/bin/bash"

// Kubectl runs a command as the administrator.
type Kubectl func(ctx context.Context, input string, arguments ...string) (string, error)

// Bed is the cluster under test.
type Bed struct {
	Kubectl  Kubectl
	Logs     string // where the agent keeps container logs
	AuditLog string
}

// patience bounds each check. All take a few seconds, unless the machine is busy elsewhere.
const patience = time.Minute

type check struct {
	promise string
	holds   func(context.Context, Bed) error
}

var checks = []check{
	{"a locked Pod runs with user, capabilities, sysctls, volumes, token, names and Services as specified", locked},
	{"a Pod that must not be root does not run as root", refusesRoot},
	{"changes of a ConfigMap and a Secret reach a running Pod", updates},
	{"a startup and a liveness probe are honoured, by a restart", restarts},
	{"init containers come first, sidecars go last, and logs can be followed to the end", ordered},
	{"a Pod that is deleted gets its preStop hook, SIGTERM and its grace", leaves},
	{"a load balancer's address reaches all replicas, on other ports, by TCP and UDP", balances},
	{"permissions are enforced, and the audit log says who asked", enforces},
}

// Run checks all promises and reports each; it returns how many hold and how many do not.
func Run(ctx context.Context, bed Bed) (passed, failed int, err error) {
	if _, err := bed.Kubectl(ctx, manifests, "apply", "--server-side", "-f", "-"); err != nil {
		return 0, 0, fmt.Errorf("apply the self-test's Pods: %w", err)
	}
	for _, c := range checks {
		began := time.Now()
		if err := c.holds(ctx, bed); err != nil {
			failed++
			fmt.Printf("FAILED  %s: %v\n", c.promise, err)
			continue
		}
		passed++
		fmt.Printf("passed  %s (%.1f s)\n", c.promise, time.Since(began).Seconds())
	}
	_, err = bed.Kubectl(ctx, "", "delete", "namespace", "selftest", "--timeout=40s")
	return passed, failed, err
}

func (b Bed) logs(ctx context.Context, pod string, flags ...string) (string, error) {
	return b.Kubectl(ctx, "", append([]string{"logs", "-n", "selftest", pod}, flags...)...)
}

func (b Bed) field(ctx context.Context, pod, path string) (string, error) {
	return b.Kubectl(ctx, "", "get", "pod", "-n", "selftest", pod, "-o", "jsonpath="+path)
}

// wants returns an error unless text contains all parts.
func wants(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return fmt.Errorf("no %q in:\n%s", part, text)
		}
	}
	return nil
}

func locked(ctx context.Context, bed Bed) error {
	var text string
	err := retry.Until(ctx, patience, func() error {
		phase, err := bed.field(ctx, "locked", "{.status.phase}")
		if err != nil || phase != "Succeeded" && phase != "Failed" {
			return fmt.Errorf("phase %q %w", phase, err)
		}
		text, err = bed.logs(ctx, "locked")
		return err
	})
	if err != nil {
		return err
	}
	ip, err := bed.field(ctx, "locked", "{.status.podIP}")
	if err != nil {
		return err
	}
	audience, err := audienceOf(text)
	if err != nil {
		return err
	}
	return wants(text+"audience="+audience, "uid=65532 pid=1\n", "root is read-only", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1",
		"ports=80", "cache=tmpfs", "ip="+ip+" name=locked label=locked expanded=locked-$(X)", "api=10.96.0.1:443", `note="hello"`,
		"audience=[penstock.test]", "echo.selftest.svc.cluster.local", "HTTP/1.0 200 OK")
}

// audienceOf reads whom the token in the log is for.
func audienceOf(text string) (string, error) {
	_, token, _ := strings.Cut(text, "token=")
	part := strings.Split(token, ".")
	if len(part) < 3 {
		return "", fmt.Errorf("no token in:\n%s", text)
	}
	data, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Aud []string `json:"aud"`
	}
	err = json.Unmarshal(data, &claims)
	return fmt.Sprint(claims.Aud), err
}

func refusesRoot(ctx context.Context, bed Bed) error {
	return retry.Until(ctx, patience, func() error {
		reason, err := bed.field(ctx, "root", "{.status.containerStatuses[0].state.waiting.reason}")
		if err != nil {
			return err
		}
		return wants(reason, "CreateContainerConfigError")
	})
}

func updates(ctx context.Context, bed Bed) error {
	seen := func(word string) error {
		return retry.Until(ctx, patience, func() error {
			text, err := bed.logs(ctx, "updated")
			if err != nil {
				return err
			}
			return wants(text, word)
		})
	}
	if err := seen("before-before\n"); err != nil {
		return err
	}
	for _, patch := range [][]string{{"configmap", "words", `{"data":{"word":"after"}}`}, {"secret", "secret", `{"stringData":{"word":"after"}}`}} {
		if _, err := bed.Kubectl(ctx, "", "patch", "-n", "selftest", patch[0], patch[1], "-p", patch[2]); err != nil {
			return err
		}
	}
	return seen("after-after\n")
}

func restarts(ctx context.Context, bed Bed) error {
	return retry.Until(ctx, patience, func() error {
		told, err := bed.field(ctx, "sick", "{.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].lastState.terminated.exitCode}")
		if err != nil {
			return err
		}
		// It falls sick again and again, so the count only rises; bash ignores SIGTERM as process 1.
		count, code, _ := strings.Cut(strings.TrimSpace(told), "/")
		if count == "" || count == "0" || code != "137" {
			return fmt.Errorf("no restart after exit code 137: restarts/code is %q", told)
		}
		return nil
	})
}

func ordered(ctx context.Context, bed Bed) error {
	err := retry.Until(ctx, patience, func() error { _, err := bed.logs(ctx, "ordered", "-c", "main"); return err })
	if err != nil {
		return err
	}
	text, err := bed.logs(ctx, "ordered", "-c", "main", "-f")
	if err != nil {
		return err
	}
	if err := wants(text, "one two\nend\n"); err != nil {
		return err
	}
	return retry.Until(ctx, patience, func() error {
		phase, err := bed.field(ctx, "ordered", "{.status.phase}")
		if err != nil {
			return err
		}
		return wants(phase, "Succeeded")
	})
}

func leaves(ctx context.Context, bed Bed) error {
	err := retry.Until(ctx, patience, func() error {
		text, err := bed.logs(ctx, "leaving")
		if err != nil {
			return err
		}
		return wants(text, "up\n")
	})
	if err != nil {
		return err
	}
	if _, err := bed.Kubectl(ctx, "", "delete", "pod", "-n", "selftest", "leaving", "--timeout=20s"); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(bed.Logs, "selftest_leaving_main.log"))
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`(?s)up\n.*preStop\n.*got TERM\n.*left\n`).Match(text) {
		return fmt.Errorf("not in this order: up, preStop, got TERM, left:\n%s", text)
	}
	return nil
}

func balances(ctx context.Context, bed Bed) error {
	ip, err := bed.Kubectl(ctx, "", "get", "service", "-n", "selftest", "echo", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	if err != nil {
		return err
	}
	if err := wants(ip, "10.240.0.210"); err != nil {
		return err
	}
	pods := map[string]bool{}
	err = retry.Until(ctx, patience, func() error {
		name, err := askPod(ctx, "http://"+ip)
		if pods[name] = true; err == nil && len(pods) < 2 {
			return fmt.Errorf("only %s answered", name)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("TCP: %w", err)
	}
	if err := retry.Until(ctx, patience, func() error { return askName(net.JoinHostPort(ip, "5353")) }); err != nil {
		return fmt.Errorf("UDP: %w", err)
	}
	return nil
}

var client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// askPod asks an echo server for its Pod's name.
func askPod(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "", err
	}
	var answer struct {
		Pod string `json:"pod"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Pod == "" {
		return "", fmt.Errorf("no echo: %s", body)
	}
	return answer.Pod, nil
}

func askName(address string) error {
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("any.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	packet, err := question.Pack()
	if err != nil {
		return err
	}
	socket, err := net.DialTimeout("udp", address, time.Second)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := socket.Write(packet); err != nil {
		return err
	}
	_, err = socket.Read(make([]byte, 1500))
	return err
}

func enforces(ctx context.Context, bed Bed) error {
	const account = "system:serviceaccount:selftest:default"
	if _, err := bed.Kubectl(ctx, "", "get", "secrets", "-n", "selftest", "--as="+account); err == nil {
		return fmt.Errorf("%s may read Secrets without any permission", account)
	}
	return retry.Until(ctx, patience, func() error {
		text, err := os.ReadFile(bed.AuditLog)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), account) {
			return fmt.Errorf("nothing about %s in the audit log", account)
		}
		return nil
	})
}
