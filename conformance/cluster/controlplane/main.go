// One multi-call binary with the real parts of a Kubernetes control plane (etcd, kube-apiserver,
// kube-controller-manager, kube-proxy) and kubectl. Each part runs as a process of its own: in one
// process they would fight over global registries. What a kubelet, a scheduler and a load balancer
// do is simulated, by the other binary of this module (../harness).
package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

const usage = "usage: controlplane etcd DIR | apiserver FLAGS | controller-manager FLAGS | proxy FLAGS | kubectl ARGS"

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		if len(os.Args) != 2 {
			fail(usage)
		}
		etcd(os.Args[1])
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	default:
		fail("unknown part " + part + "\n" + usage)
	}
}

// etcd serves one member on the loopback address until it is told to stop. Nothing is synced to
// disk: the data lives as long as the cluster, which is one run.
func etcd(dir string) {
	local := func(port string) []url.URL { return []url.URL{{Scheme: "http", Host: "127.0.0.1:" + port}} }
	config := embed.NewConfig()
	config.Dir, config.UnsafeNoFsync, config.LogLevel = dir, true, "error"
	config.ListenClientUrls, config.AdvertiseClientUrls = local("2379"), local("2379")
	config.ListenPeerUrls, config.AdvertisePeerUrls = local("2380"), local("2380")
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		fail(err.Error())
	}
	<-server.Server.ReadyNotify()
	fmt.Println("etcd ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
	server.Close()
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
