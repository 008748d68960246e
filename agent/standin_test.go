package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The test binary, started again with one of these flags, is a browser, the browser's child,
// or an agent.
const (
	standInFlag = "--stand-in"
	childFlag   = "--stand-in-child"
	agentFlag   = "--agent="
	brokenFlag  = "--stand-in-broken"
)

func TestMain(m *testing.M) {
	for _, arg := range os.Args[1:] {
		switch {
		case arg == childFlag:
			// A renderer that outlives its browser unless it is killed; not for ever, though,
			// since nobody is there to kill it once the agent is gone.
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
			_, _ = io.Copy(io.Discard, os.Stdin)
			<-time.After(2 * patient)
			os.Exit(0)
		case strings.HasPrefix(arg, agentFlag):
			runAgent(strings.TrimPrefix(arg, agentFlag))
		case arg == brokenFlag:
			fmt.Fprintln(os.Stderr, "cannot open the display")
			os.Exit(3)
		case arg == standInFlag:
			standIn()
		}
	}
	os.Exit(m.Run())
}

// standIn is a browser as far as the agent can see: it announces a DevTools address, leaves
// files, has a child, and can be made to close or crash.
func standIn() {
	flag := func(name string) string {
		i := slices.IndexFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, name+"=") })
		if i < 0 {
			return ""
		}
		return strings.TrimPrefix(os.Args[i], name+"=")
	}
	profile := flag("--user-data-dir")
	must(os.MkdirAll(filepath.Join(profile, "Default"), 0o700))
	must(os.WriteFile(filepath.Join(profile, "Default", "Cookies"), []byte("secret"), 0o600))
	child := exec.Command(os.Args[0], childFlag)
	child.Stderr = os.Stderr    // as renderers inherit it
	_, err := child.StdinPipe() // ends with this process
	must(err)
	must(child.Start())

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	path := "/devtools/browser/" + strconv.Itoa(os.Getpid())
	facts := map[string]string{
		"pid": strconv.Itoa(os.Getpid()), "child": strconv.Itoa(child.Process.Pid), "profile": profile,
		"size": flag("--window-size"), "agent": flag("--user-agent"), "tz": os.Getenv("TZ"),
		"env": strings.Join(os.Environ(), "\n"),
	}
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { converse(w, r, facts) })
	mux.HandleFunc("/devtools/page/T1", func(w http.ResponseWriter, r *http.Request) { converse(w, r, facts) })
	mux.HandleFunc("/json/version", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_ = json.NewEncoder(w).Encode(map[string]any{"Browser": "StandIn/1.0", "host": r.Host, "headers": r.Header})
	})
	mux.HandleFunc("/json/list", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/json/protocol", func(w http.ResponseWriter, _ *http.Request) {
		for range 9 << 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("PUT /json/new", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.RawQuery)
	})
	fmt.Fprintf(os.Stderr, "some warning\n\nDevTools listening on ws://%s%s\n", ln.Addr(), path)
	must(http.Serve(ln, mux))
}

// converse answers the name of a fact with it, obeys close and crash, and echoes the rest.
func converse(w http.ResponseWriter, r *http.Request, facts map[string]string) {
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		_, msg, err := conn.ReadMessage()
		if err != nil {
			return
		}
		switch string(msg) {
		case "close":
			syscall.Exit(0) // at once; os.Exit takes a second under the race detector
		case "crash":
			must(syscall.Kill(os.Getpid(), syscall.SIGSEGV))
			select {}
		}
		if fact, ok := facts[string(msg)]; ok {
			msg = []byte(fact)
		}
		if conn.WriteMessage(websocket.TextMessage, msg) != nil {
			return
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// untilTerminated is cancelled by SIGTERM.
func untilTerminated() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}
