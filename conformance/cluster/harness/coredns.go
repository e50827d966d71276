package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/net/dns/dnsmessage"

	"penstock/conformance/cluster/agent"
)

// answerAnything stands for the image coredns, which the Gateway API suite's UDP tests run as a
// backend: every name has the same address.
func answerAnything() int {
	socket, err := net.ListenPacket("udp", ":53")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("answering every question")
	ctx := untilSignal()
	context.AfterFunc(ctx, func() { socket.Close() })
	agent.ServeDNS(ctx, socket, func(_ string, kind dnsmessage.Type) ([]dnsmessage.ResourceBody, bool) {
		if kind != dnsmessage.TypeA {
			return nil, true
		}
		return []dnsmessage.ResourceBody{&dnsmessage.AResource{A: [4]byte{192, 0, 2, 53}}}, true
	})
	return 0
}
