package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"penstock/conformance/cluster/sandbox"
)

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestExpandsWhatIsDefined(t *testing.T) {
	env := []string{"A=1", "B=2", "A=3"}
	for text, want := range map[string]string{
		"$(A)-$(B)": "3-2", "$$(A)": "$(A)", "$(NONE)": "$(NONE)", "$": "$", "a$b": "a$b", "$(": "$(", "$$$(A)": "$3",
	} {
		equal(t, expand(text, env), want)
	}
}

func TestTheLongestImageNameWins(t *testing.T) {
	programs, err := ParsePrograms("envoy=/bin/a,envoyproxy/gateway=/bin/b@65532")
	if err != nil {
		t.Fatal(err)
	}
	found, ok := programs.For("docker.io/envoyproxy/gateway:v1.9.0")
	equal(t, found, Program{Image: "envoyproxy/gateway", Path: "/bin/b", UID: 65532})
	programs, err = ParsePrograms("server=/bin/s mock,git=/bin/true ")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, Argv(programs[0], []string{"python3", "-m", "x"}, []string{"--port", "1"}), []string{"s", "mock", "--port", "1"})
	equal(t, Argv(programs[1], []string{"/bin/sh"}, nil), []string{"true"})
	programs, _ = ParsePrograms("envoy=/bin/a,envoyproxy/gateway=/bin/b@65532")
	equal(t, ok, true)
	_, ok = programs.For("pause")
	equal(t, ok, false)
	if _, err := ParsePrograms("nothing"); err == nil {
		t.Error("an entry without a program was taken")
	}
}

func TestServiceVariables(t *testing.T) {
	service := func(namespace, name, ip string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
		}
	}
	services := []*corev1.Service{service("own", "my-echo", "10.96.0.9"), service("own", "headless", "None"), service("other", "far", "10.96.0.8"), service("default", "kubernetes", "10.96.0.1")}
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "own"}}
	env := serviceVariables(object, services)
	for _, want := range []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "MY_ECHO_SERVICE_PORT=80", "MY_ECHO_SERVICE_PORT_HTTP=80", "MY_ECHO_PORT_80_TCP_ADDR=10.96.0.9", "MY_ECHO_PORT=tcp://10.96.0.9:80"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
	off := false
	object.Spec.EnableServiceLinks = &off
	for _, e := range serviceVariables(object, services) {
		if !strings.HasPrefix(e, "KUBERNETES_") {
			t.Errorf("%s although the Pod declined", e)
		}
	}
}

func TestSecurityOfTheContainerWins(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	yes, no := true, false
	pod := &corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: number(1), RunAsNonRoot: &yes, FSGroup: number(7)}}
	c := &corev1.Container{SecurityContext: &corev1.SecurityContext{
		RunAsUser: number(2), AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
	}}
	var spec sandbox.Spec
	if err := secure(&spec, pod, c, 0); err != nil {
		t.Fatal(err)
	}
	equal(t, spec, sandbox.Spec{UID: 2, Groups: []int{7}, ReadOnlyRoot: true, NoNewPrivileges: true, Capabilities: []string{"NET_BIND_SERVICE"}})
	pod.SecurityContext.RunAsUser, c.SecurityContext = nil, nil
	if secure(&spec, pod, c, 0) == nil {
		t.Error("root was not refused")
	}
	if err := secure(&spec, pod, c, 65532); err != nil {
		t.Error(err)
	}
}

func TestUnsafeSysctlsAreRefused(t *testing.T) {
	pod := &corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}}}
	got, err := allowedSysctls(pod)
	equal(t, got, map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"})
	equal(t, err, nil)
	pod.SecurityContext.Sysctls[0].Name = "kernel.panic"
	if _, err := allowedSysctls(pod); err == nil {
		t.Error("kernel.panic was taken")
	}
}

func TestVolumesChangeInOneStep(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		return string(data)
	}
	file := func(text string) volumeFile { return volumeFile{[]byte(text), 0o644, -1} }
	for _, step := range []struct {
		files   map[string]volumeFile
		changed bool
	}{
		{map[string]volumeFile{"a": file("1"), "sub/b": file("2")}, true},
		{map[string]volumeFile{"a": file("1"), "sub/b": file("2")}, false},
		{map[string]volumeFile{"a": file("3")}, true},
	} {
		changed, err := writeVolume(dir, step.files, -1)
		equal(t, err, nil)
		equal(t, changed, step.changed)
		for name, want := range step.files {
			equal(t, read(name), string(want.data))
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "sub")); err == nil {
		t.Error("a name that has gone is still there")
	}
}

func TestAddressesAreReusedLast(t *testing.T) {
	a := newAddresses()
	first, ip, _ := a.take()
	equal(t, ip, "10.244.1.0")
	a.release(first)
	_, ip, _ = a.take()
	equal(t, ip, "10.244.1.1")
}

func TestLoadBalancerAddresses(t *testing.T) {
	b := newBalancer()
	give := func(uid types.UID, wanted string) string {
		address, err := b.assign(uid, wanted)
		if err != nil {
			return "none"
		}
		return address.String()
	}
	equal(t, give("a", ""), "10.240.0.10")
	equal(t, give("a", ""), "10.240.0.10")
	equal(t, give("b", "10.240.0.200"), "10.240.0.200")
	equal(t, give("c", "10.240.0.200"), "none")
	equal(t, give("c", "192.0.2.1"), "none")
	b.release("a")
	equal(t, give("c", ""), "10.240.0.11")
	for range 188 {
		b.release("d")
		give("d", "")
	}
	b.release("d")
	equal(t, give("d", ""), "10.240.0.10")
}

func TestProbesNeedAStreak(t *testing.T) {
	s := newStreak(&corev1.Probe{SuccessThreshold: 1, FailureThreshold: 2})
	for _, step := range []struct{ ok, decided bool }{{false, false}, {true, true}, {false, false}, {false, true}} {
		equal(t, s.add(step.ok), step.decided)
	}
}

func TestReadsLogsAsAsked(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	query := parseLogQuery(map[string][]string{"sinceSeconds": {"5"}, "tailLines": {"2"}}, now)
	equal(t, query.tail, 2)
	for line, want := range map[string]string{"2026-01-01T00:00:04Z old": "", "2026-01-01T00:00:05.5Z new": "new", "broken": ""} {
		text, _ := query.want(line)
		equal(t, text, want)
	}
}

type fakeCatalogue struct{}

func (fakeCatalogue) service(namespace, name string) *corev1.Service {
	spec, ok := map[string]corev1.ServiceSpec{
		"echo": {ClusterIP: "10.96.0.5", Ports: []corev1.ServicePort{{Name: "grpc", Port: 9002, Protocol: corev1.ProtocolTCP}}}, "pods": {ClusterIP: "None"},
	}[name]
	if !ok || namespace != "own" {
		return nil
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: spec}
}

func (fakeCatalogue) endpoints(_, _ string) []*discovery.EndpointSlice {
	host, not := "first", false
	return []*discovery.EndpointSlice{{Endpoints: []discovery.Endpoint{
		{Addresses: []string{"10.244.1.1"}, Hostname: &host}, {Addresses: []string{"10.244.1.2"}, Conditions: discovery.EndpointConditions{Ready: &not}},
	}}}
}

func TestNamesOfServices(t *testing.T) {
	for name, want := range map[string][]string{
		"echo.own.svc.cluster.local.": {"10.96.0.5"}, "pods.own.svc.cluster.local.": {"10.244.1.1"}, "first.pods.own.svc.cluster.local.": {"10.244.1.1"},
		"second.pods.own.svc.cluster.local.": nil, "echo.other.svc.cluster.local.": nil, "example.com.": nil,
	} {
		records, exists := lookUp(fakeCatalogue{}, name, dnsmessage.TypeA)
		var got []string
		for _, r := range records {
			got = append(got, netip.AddrFrom4(r.(*dnsmessage.AResource).A).String())
		}
		equal(t, got, want)
		equal(t, exists, want != nil)
	}
	records, _ := lookUp(fakeCatalogue{}, "_grpc._tcp.echo.own.svc.cluster.local.", dnsmessage.TypeSRV)
	equal(t, records[0].(*dnsmessage.SRVResource).Port, uint16(9002))
}

func TestPhases(t *testing.T) {
	ended := func(code int32) *container {
		return &container{over: true, spec: &corev1.Container{}, state: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	running := &container{spec: &corev1.Container{}, state: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	waiting := &container{spec: &corev1.Container{}, state: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}
	badInit := ended(1)
	badInit.init = true
	for _, c := range []struct {
		containers []*container
		want       corev1.PodPhase
	}{
		{[]*container{waiting, running}, corev1.PodPending}, {[]*container{running, ended(1)}, corev1.PodRunning},
		{[]*container{ended(0), ended(0)}, corev1.PodSucceeded}, {[]*container{ended(0), ended(1)}, corev1.PodFailed}, {[]*container{badInit, waiting}, corev1.PodFailed},
	} {
		equal(t, phase(c.containers, false), c.want)
	}
}
