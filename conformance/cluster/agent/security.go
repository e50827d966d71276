package agent

import (
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"

	"penstock/conformance/cluster/sandbox"
)

// secure puts into spec what the Pod's and the container's security contexts demand; the
// container's wins. user is the one that the image names.
func secure(spec *sandbox.Spec, pod *corev1.PodSpec, c *corev1.Container, user int64) error {
	whole, own := pod.SecurityContext, c.SecurityContext
	if whole == nil {
		whole = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	spec.UID = int(first(user, own.RunAsUser, whole.RunAsUser))
	spec.GID = int(first(0, own.RunAsGroup, whole.RunAsGroup))
	if first(false, own.RunAsNonRoot, whole.RunAsNonRoot) && spec.UID == 0 {
		return fmt.Errorf("container has runAsNonRoot and image will run as root (set runAsUser)")
	}
	spec.Groups = groups(whole)
	spec.ReadOnlyRoot = first(false, own.ReadOnlyRootFilesystem)
	spec.Privileged = first(false, own.Privileged)
	spec.NoNewPrivileges = !first(true, own.AllowPrivilegeEscalation)
	var add, drop []string
	if own.Capabilities != nil {
		add, drop = names(own.Capabilities.Add), names(own.Capabilities.Drop)
	}
	spec.Capabilities = sandbox.Capabilities(add, drop)
	return nil
}

func groups(whole *corev1.PodSecurityContext) []int {
	var all []int
	for _, group := range whole.SupplementalGroups {
		all = append(all, int(group))
	}
	if whole.FSGroup != nil {
		all = append(all, int(*whole.FSGroup))
	}
	return all
}

func names(capabilities []corev1.Capability) []string {
	all := make([]string, 0, len(capabilities))
	for _, c := range capabilities {
		all = append(all, string(c))
	}
	return all
}

// first is the first value that is set, else the fallback.
func first[T any](fallback T, values ...*T) T {
	for _, value := range values {
		if value != nil {
			return *value
		}
	}
	return fallback
}

// allowedSysctls are the Pod's kernel settings, refused when one is not safe for other Pods.
func allowedSysctls(pod *corev1.PodSpec) (map[string]string, error) {
	settings := map[string]string{}
	if pod.SecurityContext == nil {
		return settings, nil
	}
	for _, setting := range pod.SecurityContext.Sysctls {
		if !safeSysctls[setting.Name] {
			safe := make([]string, 0, len(safeSysctls))
			for name := range safeSysctls {
				safe = append(safe, name)
			}
			sort.Strings(safe)
			return nil, fmt.Errorf("forbidden sysctl %q: not one of the safe ones %v", setting.Name, safe)
		}
		settings[setting.Name] = setting.Value
	}
	return settings, nil
}
