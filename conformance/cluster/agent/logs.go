package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	certutil "k8s.io/client-go/util/cert"
)

// logFile keeps what a container writes, each line with the time of its arrival. The output of the
// run before the present one is kept beside it.
type logFile struct {
	path string
	mu   sync.Mutex
	copy sync.WaitGroup
	over bool
}

// openLogs are the files that are still written to, by path: whoever follows one waits for more.
var openLogs sync.Map

func logPath(state, namespace, pod, container string) string {
	return filepath.Join(state, "logs", namespace+"_"+pod+"_"+container+".log")
}

func newLogFile(path string) *logFile {
	l := &logFile{path: path}
	openLogs.Store(path, l)
	return l
}

// begin opens the file for another run of the container; its output goes to what is returned.
func (l *logFile) begin() (*os.File, error) {
	l.copy.Wait()
	if err := os.Rename(l.path, l.path+".previous"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := os.Create(l.path)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		file.Close()
		return nil, err
	}
	l.copy.Go(func() {
		defer file.Close()
		defer read.Close()
		stamp(file, read)
	})
	return write, nil
}

// stamp copies lines, each after the time it came.
func stamp(to io.Writer, from io.Reader) {
	for lines := bufio.NewReaderSize(from, 64<<10); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			fmt.Fprintf(to, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

func (l *logFile) close() {
	l.copy.Wait()
	openLogs.Delete(l.path)
}

// logQuery is what a reader of logs asks for.
type logQuery struct {
	since              time.Time
	tail               int // -1 for all
	limit              int64
	timestamps, follow bool
	previous           bool
}

func parseLogQuery(values url.Values, now time.Time) logQuery {
	query := logQuery{tail: -1, limit: 1 << 62}
	query.since, _ = time.Parse(time.RFC3339Nano, values.Get("sinceTime"))
	if n, err := strconv.Atoi(values.Get("sinceSeconds")); err == nil {
		query.since = now.Add(-time.Duration(n) * time.Second)
	}
	if n, err := strconv.Atoi(values.Get("tailLines")); err == nil {
		query.tail = n
	}
	if n, err := strconv.ParseInt(values.Get("limitBytes"), 10, 64); err == nil {
		query.limit = n
	}
	query.timestamps, _ = strconv.ParseBool(values.Get("timestamps"))
	query.follow, _ = strconv.ParseBool(values.Get("follow"))
	query.previous, _ = strconv.ParseBool(values.Get("previous"))
	return query
}

// want says what of a stored line the reader gets, if anything.
func (q logQuery) want(line string) (string, bool) {
	at, text, ok := strings.Cut(line, " ")
	if !ok {
		return "", false
	}
	if when, err := time.Parse(time.RFC3339Nano, at); err != nil || when.Before(q.since) {
		return "", false
	}
	if q.timestamps {
		return line, true
	}
	return text, true
}

// serveLogs answers /containerLogs/NAMESPACE/POD/CONTAINER as a kubelet does, until ctx ends.
func (a *Agent) serveLogs(ctx context.Context) error {
	cert, key, err := certutil.GenerateSelfSignedCertKey(a.HostIP, []net.IP{net.ParseIP(a.HostIP)}, nil)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(a.HostIP, strconv.Itoa(logsPort)), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(a.answerLogs), BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		if err := server.Serve(listener); err != nil && ctx.Err() == nil {
			log.Printf("serve logs: %v", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

func (a *Agent) answerLogs(w http.ResponseWriter, r *http.Request) {
	part := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(part) != 4 || part[0] != "containerLogs" {
		http.Error(w, "this node serves container logs only", http.StatusNotFound)
		return
	}
	query := parseLogQuery(r.URL.Query(), time.Now())
	path := logPath(a.State, part[1], part[2], part[3])
	if query.previous {
		path += ".previous"
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(w, fmt.Sprintf("container %s of Pod %s has no log yet", part[3], part[2]), http.StatusNotFound)
		return
	}
	defer file.Close()
	sendLog(r.Context(), w, file, path, query)
}

func sendLog(ctx context.Context, w io.Writer, file *os.File, path string, query logQuery) {
	lines := bufio.NewReader(file)
	var held []string // what may be among the last lines
	started, sent, partial := query.tail < 0, int64(0), ""
	open := query.follow // once nobody writes any more, one last look follows
	send := func(text string) bool {
		text = text[:min(int64(len(text)), query.limit-sent)]
		n, err := io.WriteString(w, text)
		sent += int64(n)
		return err == nil && sent < query.limit
	}
	for {
		line, err := lines.ReadString('\n')
		partial += line
		if err == nil {
			text, ok := query.want(partial)
			partial = ""
			if ok && !started {
				held = append(held, text)
				held = held[max(0, len(held)-query.tail):]
			} else if ok && !send(text) {
				return
			}
			continue
		}
		started = true
		for _, text := range held {
			if !send(text) {
				return
			}
		}
		held = nil
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		if !open || ctx.Err() != nil {
			return
		}
		_, open = openLogs.Load(path)
		pause(ctx, 100*time.Millisecond)
	}
}
