//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gorilla/websocket"
)

// This program, started with one of these flags, is a browser, or what starts an agent.
const (
	browserFlag = "--stand-in=" // and a Chromium that one in ten becomes
	agentFlag   = "--agent="    // and the program, whose agent it becomes unless the mute file is there
	muteFile    = "mute"        // in the directory of the program
)

func playRoles() {
	for _, arg := range os.Args[1:] {
		if chromium, ok := strings.CutPrefix(arg, browserFlag); ok {
			quit(browse(chromium))
		}
		if rest, ok := strings.CutPrefix(arg, agentFlag); ok {
			binary, mute, _ := strings.Cut(rest, ",")
			if _, err := os.Stat(mute); err == nil {
				_, _ = io.Copy(io.Discard, os.Stdin) // runs, and says nothing, until its runner is gone
				os.Exit(0)
			}
			quit(syscall.Exec(binary, []string{binary, "agent"}, os.Environ()))
		}
	}
}

func quit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// browse is a browser as far as the agent and a client with one question can see.
func browse(chromium string) error {
	if chromium != "" && rand.IntN(10) == 0 {
		args := slices.DeleteFunc(slices.Clone(os.Args), func(a string) bool { return strings.HasPrefix(a, browserFlag) })
		args[0] = chromium
		return syscall.Exec(chromium, args, os.Environ())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	page := strconv.Itoa(os.Getpid())
	fmt.Fprintf(os.Stderr, "\nDevTools listening on ws://%s/devtools/browser/%s\n", l.Addr(), page)
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // its only caller is the agent
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return // it is answered
		}
		defer conn.Close()
		for {
			var ask struct {
				ID int `json:"id"`
			}
			if err := conn.ReadJSON(&ask); err != nil {
				return
			}
			text, err := json.Marshal(answer{ID: ask.ID, Result: targets{[]target{{page, "page"}}}})
			if err != nil || conn.WriteMessage(websocket.TextMessage, text) != nil {
				return
			}
		}
	}))
}

// question is what clients ask: which pages are there? A browser that was started anew has
// others.
const question = `{"id":%d,"method":"Target.getTargets"}`

type answer struct {
	ID     int     `json:"id"`
	Result targets `json:"result"`
}

type targets struct {
	TargetInfos []target `json:"targetInfos"`
}

type target struct {
	TargetID string `json:"targetId"`
	Type     string `json:"type"`
}

// page is the one that an answer names.
func (a *answer) page() string {
	for _, t := range a.Result.TargetInfos {
		if t.Type == "page" {
			return t.TargetID
		}
	}
	return ""
}
