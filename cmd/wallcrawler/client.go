package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// apiClient speaks to a running service.
type apiClient struct {
	server string // http(s)://host[:port]
	key    string
}

// target are the flags by which a command finds its service.
type target struct {
	server, key string
	json        bool
}

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.server, "server", "", "the service (default $WALLCRAWLER_SERVER, else a running dev)")
	cmd.Flags().StringVar(&t.key, "key", "", "API key (default $WALLCRAWLER_API_KEY, else the running dev's)")
	cmd.Flags().BoolVar(&t.json, "json", false, "print JSON")
}

// client finds the service: flags, then the environment, then a running dev of this user.
func (t *target) client() (apiClient, error) {
	c := apiClient{server: first(t.server, os.Getenv("WALLCRAWLER_SERVER")), key: first(t.key, os.Getenv("WALLCRAWLER_API_KEY"))}
	if c.server == "" || c.key == "" {
		found, err := recallServer()
		if err != nil {
			return c, err
		}
		if c.server == "" || c.server == found.Server {
			c.server, c.key = found.Server, first(c.key, found.Key)
		}
	}
	if c.key == "" {
		return c, errors.New("no API key: give --key or set WALLCRAWLER_API_KEY")
	}
	u, err := url.Parse(c.server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return c, fmt.Errorf("the server %q is not http(s)://host[:port]", c.server)
	}
	c.server = strings.TrimRight(c.server, "/")
	return c, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// clientTimeout bounds one request; a creation waits for its browser a little.
const clientTimeout = 60 * time.Second

// do makes a request and reads the answer into out.
func (c apiClient) do(ctx context.Context, method, path string, in, out any) error {
	_, err := c.ask(ctx, method, path, in, out)
	return err
}

// ask is do, and gives the answer's header.
func (c apiClient) ask(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("X-BB-API-Key", c.key)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w: is the service running?", c.server, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		return nil, refused(resp.StatusCode, text)
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = text
		return resp.Header, nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return resp.Header, nil
}

// refused makes an error of a service's refusal.
func refused(status int, text []byte) error {
	var problem struct{ Message, Hint, RequestID string }
	if json.Unmarshal(text, &problem) != nil || problem.Message == "" {
		return fmt.Errorf("the service answered %d", status)
	}
	message := problem.Message
	if problem.Hint != "" {
		message += ": " + problem.Hint
	}
	return fmt.Errorf("%s (HTTP %d, request %s)", message, status, problem.RequestID)
}

// remembered is what a dev leaves for the other commands, readable by its user only.
type remembered struct {
	Server string `json:"server"`
	Key    string `json:"key"`
	PID    int    `json:"pid"`
}

func rememberedPath() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "wallcrawler", "dev.json"), nil
}

// rememberServer leaves where a dev is; forget takes that away again unless another dev has
// replaced it. forget may always be called.
func rememberServer(server, key string) (forget func(), err error) {
	forget = func() {}
	path, err := rememberedPath()
	if err != nil {
		return forget, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return forget, err
	}
	text, err := json.Marshal(remembered{server, key, os.Getpid()})
	if err != nil {
		return forget, err
	}
	// A new file, renamed into place: never readable by others, never half written.
	next, err := os.CreateTemp(filepath.Dir(path), "dev-*.json")
	if err != nil {
		return forget, err
	}
	_, err = next.Write(text)
	err = errors.Join(err, next.Close())
	if err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		_ = os.Remove(next.Name())
		return forget, err
	}
	return func() {
		if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, text) {
			_ = os.Remove(path)
		}
	}, nil
}

func recallServer() (remembered, error) {
	nowhere := errors.New("no service: start one with wallcrawler dev, or give --server and --key (WALLCRAWLER_SERVER, WALLCRAWLER_API_KEY)")
	path, err := rememberedPath()
	if err != nil {
		return remembered{}, nowhere
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return remembered{}, nowhere
	}
	var r remembered
	if json.Unmarshal(text, &r) != nil || r.Server == "" {
		return remembered{}, fmt.Errorf("%s is damaged: remove it", path)
	}
	return r, nil
}

// printTable prints rows in columns; the first is the heading.
func printTable(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
}
