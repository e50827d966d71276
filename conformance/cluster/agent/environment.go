package agent

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// defaultPath ends with what images have; the program that stands for the image comes first.
const defaultPath = "PATH=/image:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// references looks up what a Pod refers to in its own namespace; an object that does not exist is
// an error that the kubelet would wait out.
type references interface {
	configMap(name string) (*corev1.ConfigMap, error)
	secret(name string) (*corev1.Secret, error)
}

// environment is a container's environment: what every container gets, its Services, envFrom, env.
// Values may use $(NAME) of what stands before them.
func environment(facts podFacts, c *corev1.Container, services []*corev1.Service, objects references) ([]string, error) {
	env := []string{defaultPath, "HOME=/root", "HOSTNAME=" + facts.hostname()}
	if facts.uid(c) != 0 {
		env[1] = "HOME=/"
	}
	env = append(env, serviceVariables(facts.object, services)...)
	for _, from := range c.EnvFrom {
		more, err := envFrom(from, objects)
		if err != nil {
			return nil, err
		}
		env = append(env, more...)
	}
	for _, e := range c.Env {
		value, present, err := envValue(facts, c, e, objects)
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", e.Name, err)
		}
		if e.ValueFrom == nil {
			value = expand(value, env)
		}
		if present {
			env = append(env, e.Name+"="+value)
		}
	}
	return env, nil
}

func envFrom(from corev1.EnvFromSource, objects references) ([]string, error) {
	var env []string
	switch {
	case from.ConfigMapRef != nil:
		m, err := objects.configMap(from.ConfigMapRef.Name)
		if err != nil {
			return nil, ignoreOptional(err, from.ConfigMapRef.Optional)
		}
		for key, value := range m.Data {
			env = append(env, from.Prefix+key+"="+value)
		}
	case from.SecretRef != nil:
		s, err := objects.secret(from.SecretRef.Name)
		if err != nil {
			return nil, ignoreOptional(err, from.SecretRef.Optional)
		}
		for key, value := range s.Data {
			env = append(env, from.Prefix+key+"="+string(value))
		}
	}
	sort.Strings(env)
	return env, nil
}

func ignoreOptional(err error, optional *bool) error {
	if first(false, optional) {
		return nil
	}
	return err
}

// envValue is one variable's value, and whether there is one.
func envValue(facts podFacts, c *corev1.Container, e corev1.EnvVar, objects references) (string, bool, error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return e.Value, true, nil
	case from.FieldRef != nil:
		value, err := facts.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := facts.resource(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := objects.configMap(ref.Name)
		if err != nil {
			return "", false, ignoreOptional(err, ref.Optional)
		}
		value, ok := m.Data[ref.Key]
		return value, ok, missingKey(ok, "ConfigMap", ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := objects.secret(ref.Name)
		if err != nil {
			return "", false, ignoreOptional(err, ref.Optional)
		}
		value, ok := s.Data[ref.Key]
		return string(value), ok, missingKey(ok, "Secret", ref.Name, ref.Key, ref.Optional)
	}
	return "", false, fmt.Errorf("this kind of source is not supported by the agent")
}

func missingKey(present bool, kind, name, key string, optional *bool) error {
	if present || first(false, optional) {
		return nil
	}
	return fmt.Errorf("%s %s has no key %s", kind, name, key)
}

// expand replaces $(NAME) by the last value of NAME in env; $$ stands for one dollar sign, and what
// names nothing stays as it is.
func expand(text string, env []string) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(text, '$')
		if at < 0 || at+1 == len(text) {
			return out.String() + text
		}
		out.WriteString(text[:at])
		rest := text[at+1:]
		end := strings.IndexByte(rest, ')')
		switch {
		case rest[0] == '$':
			out.WriteByte('$')
			text = rest[1:]
		case rest[0] == '(' && end > 0:
			value, ok := lookup(env, rest[1:end])
			if !ok {
				value = "$(" + rest[1:end] + ")"
			}
			out.WriteString(value)
			text = rest[end+1:]
		default:
			out.WriteByte('$')
			text = rest
		}
	}
}

func lookup(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// serviceVariables are those of the API server and, unless the Pod declines, of every Service of its
// namespace that has an address of the cluster.
func serviceVariables(object *corev1.Pod, services []*corev1.Service) []string {
	var env []string
	sort.Slice(services, func(i, j int) bool { return services[i].Name < services[j].Name })
	for _, s := range services {
		api := s.Namespace == "default" && s.Name == "kubernetes"
		linked := s.Namespace == object.Namespace && first(true, object.Spec.EnableServiceLinks)
		if (api || linked) && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone && len(s.Spec.Ports) > 0 {
			env = append(env, variablesOf(s)...)
		}
	}
	return env
}

func variablesOf(s *corev1.Service) []string {
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	ip, ports := s.Spec.ClusterIP, s.Spec.Ports
	env := []string{prefix + "_SERVICE_HOST=" + ip, prefix + "_SERVICE_PORT=" + strconv.Itoa(int(ports[0].Port))}
	for i, p := range ports {
		number, protocol := strconv.Itoa(int(p.Port)), strings.ToLower(string(p.Protocol))
		url := protocol + "://" + net.JoinHostPort(ip, number)
		if p.Name != "" {
			env = append(env, prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))+"="+number)
		}
		if i == 0 {
			env = append(env, prefix+"_PORT="+url)
		}
		link := prefix + "_PORT_" + number + "_" + strings.ToUpper(protocol)
		env = append(env, link+"="+url, link+"_PROTO="+protocol, link+"_PORT="+number, link+"_ADDR="+ip)
	}
	return env
}
