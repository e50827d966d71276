package trials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"penstock/conformance/cluster/retry"
)

var client = &http.Client{Timeout: 30 * time.Second}

// read returns a file of upstream's.
func (b Bed) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(b.Guides, name))
	return string(text), err
}

func (b Bed) apply(ctx context.Context, text string) error {
	_, err := b.Kubectl(ctx, text, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// applyFiles applies files of upstream's as they are.
func (b Bed) applyFiles(ctx context.Context, names ...string) error {
	for _, name := range names {
		text, err := b.read(name)
		if err != nil {
			return err
		}
		if err := b.apply(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// rolledOut waits until Deployments of the namespace have all that they ask for.
func (b Bed) rolledOut(ctx context.Context, namespace string, names ...string) error {
	for _, name := range names {
		if _, err := b.Kubectl(ctx, "", "rollout", "status", "-n", namespace, "deployment/"+name, "--timeout="+patience.String()); err != nil {
			return err
		}
	}
	return nil
}

// address is where a Gateway serves, once it does.
func (b Bed) address(ctx context.Context, namespace, gateway string) (string, error) {
	if _, err := b.Kubectl(ctx, "", "wait", "-n", namespace, "--for=condition=Programmed", "--timeout="+patience.String(), "gateway/"+gateway); err != nil {
		return "", err
	}
	return b.Kubectl(ctx, "", "get", "-n", namespace, "gateway/"+gateway, "-o", "jsonpath={.status.addresses[0].value}")
}

// pods are the addresses of the ready Pods that a selector names.
func (b Bed) pods(ctx context.Context, namespace, selector string) ([]string, error) {
	text, err := b.Kubectl(ctx, "", "get", "pods", "-n", namespace, "-l", selector, "--field-selector=status.phase=Running",
		"-o", `jsonpath={range .items[*]}{.status.podIP}{" "}{.status.conditions[?(@.type=="Ready")].status}{" "}{.metadata.deletionTimestamp}{"\n"}{end}`)
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, line := range strings.Split(text, "\n") {
		// One that is being deleted has a third word.
		if fields := strings.Fields(line); len(fields) == 2 && fields[1] == "True" {
			ips = append(ips, fields[0])
		}
	}
	return ips, nil
}

// left waits until no Pod that a selector names is on its way out.
func (b Bed) left(ctx context.Context, namespace, selector string) error {
	return retry.Until(ctx, patience, func() error {
		leaving, err := b.Kubectl(ctx, "", "get", "pods", "-n", namespace, "-l", selector, "-o", `jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}`)
		if err == nil && leaving != "" {
			err = fmt.Errorf("still leaving: %s", leaving)
		}
		return err
	})
}

// received counts, by model, the questions that the servers have got; and forgets them.
func (b Bed) received(ctx context.Context, namespace, selector string) (map[string]int, error) {
	ips, err := b.pods(ctx, namespace, selector)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, ip := range ips {
		url := "http://" + ip + ":8000/mock/requests"
		var told struct {
			Requests []struct{ Model, Method string }
		}
		if err := ask(ctx, "GET", url, nil, &told); err != nil {
			return nil, err
		}
		if err := ask(ctx, "DELETE", url, nil, nil); err != nil {
			return nil, err
		}
		for _, request := range told.Requests {
			if request.Method == "POST" {
				counts[request.Model]++
			}
		}
	}
	return counts, nil
}

func ask(ctx context.Context, method, url string, question, answer any) error {
	var body io.Reader
	if question != nil {
		data, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: status %d: %s", method, url, response.StatusCode, data)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chat asks model a question at address, and wants words for an answer.
func chat(ctx context.Context, address, model string) error {
	question := map[string]any{"model": model, "max_tokens": 5, "messages": []message{{"user", "Write as if you were a critic: San Francisco"}}}
	var answer struct {
		Choices []struct{ Message message }
	}
	if err := ask(ctx, "POST", "http://"+address+"/v1/chat/completions", question, &answer); err != nil {
		return err
	}
	if len(answer.Choices) == 0 || answer.Choices[0].Message.Content == "" {
		return fmt.Errorf("an answer without words to %s", model)
	}
	return nil
}

// asked waits until model answers, asks count times, and returns what the servers received by then.
func (b Bed) asked(ctx context.Context, address, model string, count int, selector string) (map[string]int, error) {
	if err := retry.Until(ctx, patience, func() error { return chat(ctx, address, model) }); err != nil {
		return nil, err
	}
	if _, err := b.received(ctx, "default", selector); err != nil {
		return nil, err
	}
	var asking sync.WaitGroup
	failures := make([]error, clients)
	for worker := range failures {
		asking.Go(func() {
			for number := worker; number < count && failures[worker] == nil; number += clients {
				failures[worker] = chat(ctx, address, model)
			}
		})
	}
	asking.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	return b.received(ctx, "default", selector)
}
