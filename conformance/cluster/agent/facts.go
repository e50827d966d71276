package agent

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// podFacts is what a Pod may learn about itself (the downward API).
type podFacts struct {
	object       *corev1.Pod
	ip           string
	hostIP, node string
	programs     Programs
}

func (f podFacts) hostname() string {
	if f.object.Spec.Hostname != "" {
		return f.object.Spec.Hostname
	}
	return f.object.Name[:min(len(f.object.Name), 63)]
}

// uid is the user that the container runs as.
func (f podFacts) uid(c *corev1.Container) int64 {
	program, _ := f.programs.For(c.Image)
	var whole, own *int64
	if s := f.object.Spec.SecurityContext; s != nil {
		whole = s.RunAsUser
	}
	if s := c.SecurityContext; s != nil {
		own = s.RunAsUser
	}
	return first(program.UID, own, whole)
}

func (f podFacts) field(path string) (string, error) {
	switch path {
	case "metadata.name":
		return f.object.Name, nil
	case "metadata.namespace":
		return f.object.Namespace, nil
	case "metadata.uid":
		return string(f.object.UID), nil
	case "metadata.labels":
		return lines(f.object.Labels), nil
	case "metadata.annotations":
		return lines(f.object.Annotations), nil
	case "status.podIP", "status.podIPs":
		return f.ip, nil
	case "status.hostIP", "status.hostIPs":
		return f.hostIP, nil
	case "spec.nodeName":
		return f.node, nil
	case "spec.serviceAccountName":
		return f.object.Spec.ServiceAccountName, nil
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		return f.object.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return f.object.Annotations[key], nil
	}
	return "", fmt.Errorf("field %q is not one that the downward API knows", path)
}

func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

func lines(values map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		all = append(all, key+"="+strconv.Quote(values[key]))
	}
	return strings.Join(all, "\n")
}

// resource is a limit or request of a container in units of the divisor, rounded up.
func (f podFacts) resource(ref *corev1.ResourceFieldSelector, c *corev1.Container) (string, error) {
	if ref.ContainerName != "" {
		for i := range f.object.Spec.Containers {
			if f.object.Spec.Containers[i].Name == ref.ContainerName {
				c = &f.object.Spec.Containers[i]
			}
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %s of no container", ref.Resource)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	amounts := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	amount := amounts[corev1.ResourceName(name)]
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt(ceil(amount.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceil(amount.Value(), divisor.Value()), 10), nil
}

func ceil(amount, divisor int64) int64 { return (amount + divisor - 1) / divisor }
