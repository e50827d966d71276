package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// The digest server stands for a backend that says what it received: the SHA-256 of the body, its length
// and the server's own address. It speaks HTTP/1.1 and HTTP/2 without TLS on one port. A call of gRPC gets
// the same as bytes of a message, and the digest once more as a trailer beside its status.
func serveDigests() int {
	server := http.Server{Addr: ":8000", Handler: http.HandlerFunc(digest), ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	context.AfterFunc(untilSignal(), func() { _ = server.Close() })
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func digest(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	length, err := io.Copy(hash, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the body was cut: so is the answer
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	answer, err := json.Marshal(map[string]any{"sha256": sum, "bytes": length, "address": os.Getenv("POD_IP")})
	if err != nil {
		panic(err)
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, X-Digest")
	_ = http.NewResponseController(w).Flush() // servers of gRPC do not say how long their answers are
	// The five bytes before a message: not compressed, and how long it is.
	_, _ = w.Write(append([]byte{0, 0, 0, byte(len(answer) >> 8), byte(len(answer))}, answer...))
	w.Header().Set("Grpc-Status", "0")
	w.Header().Set("X-Digest", sum)
}
