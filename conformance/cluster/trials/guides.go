package trials

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"penstock/conformance/cluster/retry"
)

// The class under which upstream's pools are served: it passes over their endpoint pickers, whose
// images only sleep here.
const builtIn = `
apiVersion: penstock.dev/v1alpha1
kind: GatewayParameters
metadata: {name: built-in, namespace: default}
spec: {picker: BuiltIn, replicas: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: built-in}
spec:
  controllerName: penstock.dev/gateway-controller
  parametersRef: {group: penstock.dev, kind: GatewayParameters, name: built-in, namespace: default}
`

const (
	qwen     = "Qwen/Qwen3-32B"
	deepseek = "deepseek/DeepSeek-r1"
	// Servers of the first pool.
	qwenServers = "app=vllm-qwen3-32b"
)

var className = regexp.MustCompile(`gatewayClassName: \S+`)

// gateway applies upstream's Gateway with our class, and returns where it serves.
func (b Bed) gateway(ctx context.Context, file string) (string, error) {
	text, err := b.read(file)
	if err != nil {
		return "", err
	}
	if err := b.apply(ctx, builtIn+"---\n"+className.ReplaceAllString(text, "gatewayClassName: built-in")); err != nil {
		return "", err
	}
	return b.address(ctx, "default", "inference-gateway")
}

// reaches says an error unless questions for asked come to the servers of a selector, all for model.
func (b Bed) reaches(ctx context.Context, address, asked, selector, model string) error {
	const count = 3
	received, err := b.asked(ctx, address, asked, count, selector)
	if err == nil && !maps.Equal(received, map[string]int{model: count}) {
		err = fmt.Errorf("the servers should have received %d questions for %s, but: %v", count, model, received)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", asked, err)
	}
	return nil
}

// A step of a guide, and how many of 100 questions may come to the new way then.
type step struct {
	manifest string
	from, to int
}

// roll goes through the steps; share asks 100 questions and says how many took the new way.
func (b Bed) roll(ctx context.Context, steps []step, share func() (int, error)) error {
	for _, step := range steps {
		if err := b.apply(ctx, step.manifest); err != nil {
			return err
		}
		held := func() error {
			got, err := share()
			if err == nil && (got < step.from || got > step.to) {
				err = fmt.Errorf("of 100 questions %d to %d should have taken the new way, not %d", step.from, step.to, got)
			}
			return err
		}
		// The proxy learns of it a moment later; what it did until then does not count. From then on it holds.
		if err := retry.Until(ctx, patience, held); err != nil {
			return err
		}
		if err := held(); err != nil {
			return fmt.Errorf("for a while only: %w", err)
		}
	}
	return nil
}

func gettingStarted(ctx context.Context, b Bed) error {
	address, err := b.gateway(ctx, "v1.5.0/gateway/agentgateway/gateway.yaml")
	if err != nil {
		return err
	}
	if err := b.apply(ctx, "{apiVersion: v1, kind: Secret, metadata: {name: hf-token, namespace: default}, stringData: {token: none}}"); err != nil {
		return err
	}
	if err := b.applyFiles(ctx, "vllm-qwen3-32b.yaml", "v1.5.0/inferenceobjective.yaml"); err != nil {
		return err
	}
	for _, server := range []string{"gpu", "cpu", "sim"} {
		if err := b.applyFiles(ctx, "v1.5.0/vllm/"+server+"-deployment.yaml"); err != nil {
			return err
		}
		if err := b.rolledOut(ctx, "default", "vllm-qwen3-32b"); err != nil {
			return err
		}
		if err := b.reaches(ctx, address, qwen, qwenServers, qwen); err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
	}
	return nil
}

// yamlBlocks are the manifests that stand in a guide, of which there must be two.
func (b Bed) yamlBlocks(file string) ([]string, error) {
	text, err := b.read(file)
	if err != nil {
		return nil, err
	}
	var blocks []string
	for _, part := range strings.Split(text, "```yaml\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		if strings.HasPrefix(block, "apiVersion:") {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) != 2 {
		return nil, fmt.Errorf("%s has %d manifests, not 2", file, len(blocks))
	}
	return blocks, nil
}

// adapters are those that the guide has the servers load.
const adapters = `[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--lora-modules"},
{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "small-segment-lora-v1=/adapters/small-segment-lora-v1"},
{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "small-segment-lora-v2=/adapters/small-segment-lora-v2"}]`

func adapterRollout(ctx context.Context, b Bed) error {
	blocks, err := b.yamlBlocks("v1.5.0/guides/adapter-rollout.md")
	if err != nil {
		return err
	}
	address, err := b.address(ctx, "default", "inference-gateway")
	if err != nil {
		return err
	}
	if err := b.applyFiles(ctx, "v1.5.0/vllm/cpu-deployment.yaml"); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "", "patch", "deployment/vllm-qwen3-32b", "--type=json", "-p", adapters); err != nil {
		return err
	}
	if err := b.rolledOut(ctx, "default", "vllm-qwen3-32b"); err != nil {
		return err
	}
	before, targets, _ := strings.Cut(blocks[1], "      targets:\n")
	if !strings.Contains(targets, "weight: 90") {
		return fmt.Errorf("the guide's second manifest has no weights:\n%s", blocks[1])
	}
	half := strings.NewReplacer("weight: 90", "weight: 50", "weight: 10", "weight: 50").Replace(blocks[1])
	// Upstream's definitions refuse a weight of 0, ours take it: the old adapter stays named and gets nothing.
	all := before + "      targets:\n        - modelRewrite: \"small-segment-lora-v1\"\n          weight: 0\n" +
		"        - modelRewrite: \"small-segment-lora-v2\"\n          weight: 100\n"
	return b.roll(ctx, []step{{blocks[0], 0, 0}, {blocks[1], 1, 25}, {half, 30, 70}, {all, 100, 100}}, func() (int, error) {
		received, err := b.asked(ctx, address, "small-segment-lora", 100, qwenServers)
		first, second := received["small-segment-lora-v1"], received["small-segment-lora-v2"]
		if err == nil && first+second != 100 {
			err = fmt.Errorf("of 100 questions for both adapters the servers received %v", received)
		}
		return second, err
	})
}

func poolRollout(ctx context.Context, b Bed) error {
	blocks, err := b.yamlBlocks("v1.5.0/guides/inferencepool-rollout.md")
	if err != nil {
		return err
	}
	address, err := b.address(ctx, "default", "inference-gateway")
	if err != nil {
		return err
	}
	servers, err := b.read("v1.5.0/vllm/sim-deployment.yaml")
	if err != nil {
		return err
	}
	// The guide takes the new servers and their pool for granted.
	if err := b.apply(ctx, servers+"---\n"+strings.ReplaceAll(servers, "vllm-qwen3-32b", "vllm-qwen3-32b-new")); err != nil {
		return err
	}
	if err := b.applyFiles(ctx, "vllm-qwen3-32b-new.yaml"); err != nil {
		return err
	}
	// Its route takes the place of the chart's.
	if _, err := b.Kubectl(ctx, "", "delete", "httproute", "vllm-qwen3-32b", "--ignore-not-found"); err != nil {
		return err
	}
	if err := b.rolledOut(ctx, "default", "vllm-qwen3-32b", "vllm-qwen3-32b-new"); err != nil {
		return err
	}
	err = b.roll(ctx, []step{{blocks[0], 1, 25}, {blocks[1], 100, 100}}, func() (int, error) {
		if _, err := b.received(ctx, "default", qwenServers); err != nil {
			return 0, err
		}
		received, err := b.asked(ctx, address, qwen, 100, "app=vllm-qwen3-32b-new")
		return received[qwen], err
	})
	if err != nil {
		return err
	}
	_, err = b.Kubectl(ctx, "", "delete", "httproute/llm-route", "inferencepool/vllm-qwen3-32b-new", "deployment/vllm-qwen3-32b-new", "--wait=false")
	return err
}

func multiplePools(ctx context.Context, b Bed) error {
	err := b.applyFiles(ctx, "body-based-router.yaml", "v1.5.0/bbr/sim-deployment.yaml", "vllm-deepseek-r1.yaml",
		"v1.5.0/bbr/configmap.yaml", "vllm-qwen3-32b-base.yaml", "v1.5.0/vllm/sim-deployment.yaml")
	if err != nil {
		return err
	}
	if err := b.rolledOut(ctx, "default", "vllm-qwen3-32b", "vllm-deepseek-r1"); err != nil {
		return err
	}
	address, err := b.address(ctx, "default", "inference-gateway")
	if err != nil {
		return err
	}
	for _, asked := range []struct{ model, servers string }{
		{qwen, qwenServers}, {deepseek, "app=vllm-deepseek-r1"}, {"food-review-1", qwenServers},
		{"movie-critique", "app=vllm-deepseek-r1"}, {"ski-resorts", "app=vllm-deepseek-r1"},
	} {
		if err := b.reaches(ctx, address, asked.model, asked.servers, asked.model); err != nil {
			return err
		}
	}
	_, err = b.Kubectl(ctx, "", "delete", "httproute/vllm-qwen3-32b", "httproute/vllm-deepseek-r1", "inferencepool/vllm-qwen3-32b",
		"inferencepool/vllm-deepseek-r1", "deployment/vllm-qwen3-32b", "deployment/vllm-deepseek-r1", "--wait=false")
	return err
}

func oldModels(ctx context.Context, b Bed) error {
	address, err := b.gateway(ctx, "v0.5.1/gateway/kgateway/gateway.yaml")
	if err != nil {
		return err
	}
	err = b.applyFiles(ctx, "v0.5.1/vllm/sim-deployment.yaml", "v0.5.1/inferencepool-resources.yaml",
		"v0.5.1/gateway/kgateway/httproute.yaml", "v0.5.1/inferencemodel.yaml")
	if err != nil {
		return err
	}
	if err := b.rolledOut(ctx, "default", "vllm-llama3-8b-instruct"); err != nil {
		return err
	}
	for asked, received := range map[string]string{
		"food-review": "food-review-1", "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B-Instruct",
	} {
		if err := b.reaches(ctx, address, asked, "app=vllm-llama3-8b-instruct", received); err != nil {
			return err
		}
	}
	_, err = b.Kubectl(ctx, "", "delete", "gateway/inference-gateway", "httproute/llm-route", "deployment/vllm-llama3-8b-instruct", "--wait=false")
	return err
}
