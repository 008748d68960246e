package observability

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Field is a structured field of the log.
type Field struct{ Name, Meaning string }

// Fields has every field that the service and the agent log, beside time, level and msg. One
// word for one thing, as in the API and in Redis.
func Fields() []Field {
	return []Field{
		{"action", "what the controller did: the kind of an action, as in `wallcrawler_actions_total`"},
		{"age", "how old a view of the store was"},
		{"because", "why, for a person; free text"},
		{"bindRev", "revision of the session's binding to its container; orders claims to one session"},
		{"bootId", "which life of the container; drawn by the agent at its start"},
		{"browser", "path of the browser's program"},
		{"by", "who ended a client's connection: the label of `wallcrawler_relay_closed_total`"},
		{"bytes", "a size in bytes"},
		{"capacity", "true: ECS had no room; false: it refused the call itself"},
		{"clean", "true: the client closed its connection in order"},
		{"clients", "how many clients are connected"},
		{"code", "WebSocket close code"},
		{"cold", "true: the browser was started for this session; false: it was warm"},
		{"container", "id of a container"},
		{"containers", "how many containers"},
		{"deployment", "name of the deployment, `DEPLOYMENT`"},
		{"doing", "what was being done when it went wrong"},
		{"draining", "true: the container is to drain; false: it may take sessions again"},
		{"drainSeq", "number of the order to drain"},
		{"epoch", "number of the lead; a higher one is later"},
		{"error", "what went wrong, and with what; free text"},
		{"failures", "how many times in a row"},
		{"file", "path of a file"},
		{"go", "version of Go that the program was built with"},
		{"key", "path of a TLS key's file; never its content"},
		{"launch", "id of a launch, which becomes that of its container"},
		{"launches", "how many launches"},
		{"letGo", "true: the previous owner had let the container go; false: it was lost"},
		{"listen", "address that the process listens at"},
		{"max", "`MAX_CONTAINERS` in force"},
		{"maxSessions", "how many sessions a container takes"},
		{"method", "HTTP method"},
		{"min", "`MIN_CONTAINERS` in force"},
		{"networks", "networks that containers are let in from"},
		{"op", "operation of the ECS API"},
		{"owner", "id of the replica that has the container's link"},
		{"ownerSeq", "number of the container's ownership; a higher one is later"},
		{"panic", "what a goroutine panicked with"},
		{"paused", "true: no launches, as `pool:desired` says"},
		{"phase", "phase of a session, as in the API and in `wallcrawler_sessions`"},
		{"pid", "id of a process"},
		{"previousOwner", "id of the replica that had the container's link before"},
		{"protocol", "version of the link's protocol: 1 or 2"},
		{"reason", "why a session ended: one of the closed set in state.md, as in the API and in `wallcrawler_session_end_total`"},
		{"record", "id of a control record in Redis, or some of many, by spaces"},
		{"refused", "why a container cannot serve a session; empty: it can"},
		{"replica", "id of a replica"},
		{"request", "id of an HTTP request: the `X-Request-Id` of its answer"},
		{"retryIn", "time until it is tried again"},
		{"route", "route of an HTTP request, as in `wallcrawler_api_requests_total`; never its path"},
		{"says", "words of a library"},
		{"secret", "name of a secret; never its value"},
		{"session", "id of a session"},
		{"sessions", "how many sessions"},
		{"source", "where a limit comes from"},
		{"stack", "a goroutine's stack"},
		{"status", "HTTP status of an answer; of a process: how it ended; of a task: ECS's word"},
		{"subject", "id of what an action was about: a session, container, launch, or a task's ARN, by `action`"},
		{"task", "ARN of an ECS task"},
		{"tasks", "how many ECS tasks"},
		{"timeout", "how long something may last"},
		{"times", "how often"},
		{"toBrowser", "bytes that went from a client to its browser"},
		{"toClient", "bytes that went from a browser to its client"},
		{"took", "how long something lasted"},
		{"type", "type of a message of the link"},
		{"until", "when a certificate expires"},
		{"url", "a URL without credentials"},
		{"user", "who asked: the `userId` of a session, or the name of an API key"},
		{"version", "version of the program"},
		{"warm", "`WARM_SLOTS` in force"},
	}
}

// contexts are the fields that all messages of a part carry, by the file that adds them.
func contexts() map[string]string {
	return map[string]string{
		"agent/agent.go":    "every message of an agent",
		"controller/act.go": "every message about an action (`action …`)",
		"proxy/link.go":     "every message of a replica about a container whose link it has (`link …`, `session recorded`, `fact not written …`, …)",
	}
}

// Logged is a place where a message is logged, or fields are added to a logger.
type Logged struct {
	Where   string // file in the checkout
	Level   string // debug, info, warn, error; varies; empty: fields are added
	Message string // empty: fields are added
	Fields  []string
}

// LogCalls finds every message that the code below root logs. What cannot be read from the
// text, such as the name of a field that is no literal, is an error: nobody could rely on it.
func LogCalls(root string) ([]Logged, error) {
	var all []Logged
	for _, dir := range []string{"agent", "api", "cmd", "controller", "proxy", "state"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			where, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			found, err := logCallsOf(path, filepath.ToSlash(where))
			all = append(all, found...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading what is logged in %s: %w", dir, err)
		}
	}
	return all, nil
}

func logCallsOf(path, where string) (all []Logged, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || err != nil {
			return err == nil
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !isLogger(method.X) {
			return true
		}
		l, first, known := logMethod(method.Sel.Name)
		if !known {
			return true
		}
		l.Where = where
		if l.Message, l.Fields, err = words(call.Args, first, l.Level != ""); err != nil {
			err = fmt.Errorf("%s: %w", files.Position(call.Pos()), err)
			return false
		}
		all = append(all, l)
		return true
	})
	return all, err
}

// isLogger tells whether an expression is a logger: ours are all called so.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "slog"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Log"
	case *ast.CallExpr: // x.log.With(…)
		if of, ok := x.Fun.(*ast.SelectorExpr); ok {
			return of.Sel.Name == "With" && isLogger(of.X)
		}
	}
	return false
}

// logMethod knows the methods of a logger: the level, and which argument is the first of interest.
func logMethod(name string) (l Logged, first int, known bool) {
	switch name {
	case "Debug", "Info", "Warn", "Error":
		return Logged{Level: strings.ToLower(name)}, 0, true
	case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		return Logged{Level: strings.ToLower(strings.TrimSuffix(name, "Context"))}, 1, true
	case "Log":
		return Logged{Level: "varies"}, 2, true
	case "With":
		return Logged{}, 0, true
	case "LogAttrs", "WithGroup", "String", "Int", "Int64", "Any", "Bool", "Duration", "Time", "Group":
		return Logged{Level: "in a way that this does not read: use names and values"}, 1 << 10, true
	}
	return Logged{}, 0, false
}

// words reads a call's message, if it has one, and the names of its fields.
func words(args []ast.Expr, first int, hasMessage bool) (message string, fields []string, err error) {
	if first > len(args) {
		return "", nil, fmt.Errorf("logs in a way that cannot be read here: give a message, then names and values")
	}
	args = args[first:]
	if hasMessage {
		if message, err = literal(args[0]); err != nil {
			return "", nil, fmt.Errorf("the message is %w", err)
		}
		args = args[1:]
	}
	for i := 0; i < len(args); i += 2 {
		name, err := literal(args[i])
		if err != nil {
			return "", nil, fmt.Errorf("the name of a field is %w", err)
		}
		fields = append(fields, name)
	}
	return message, fields, nil
}

func literal(x ast.Expr) (string, error) {
	lit, ok := x.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", fmt.Errorf("no literal text")
	}
	return strconv.Unquote(lit.Value)
}

// LogsPage is docs/logs.md, made of Fields and of the code below root.
func LogsPage(root string) (string, error) {
	calls, err := LogCalls(root)
	if err != nil {
		return "", err
	}
	carried := map[string][]string{}
	for _, c := range calls {
		for _, name := range c.Fields {
			if c.Level == "" {
				carried[name] = append(carried[name], contexts()[c.Where])
			}
		}
	}
	var b strings.Builder
	b.WriteString(`# Logs

<!-- Written by ` + "`make docs`" + ` from deploy/observability/logs.go and the code's calls: change it there. -->

` + "`wallcrawler serve`" + ` and ` + "`wallcrawler agent`" + ` write a line of JSON for each message to standard error (` + "`dev`" + ` writes text): ` + "`time`, `level`, `msg`" + `
and the fields below. ` + "`LOG_LEVEL`" + ` is the least level. **Names of fields are kept** as flags are: build queries on them. The
messages' words may change with any version; the runbook's are compared with the code. Durations are texts such as ` + "`1.5s`" + `, times are RFC 3339.
No field holds a token, a key, a connect URL, or what a client and its browser say to each other; a request is logged by its route,
never by its path or query.

To follow one session across replicas and agents, look for ` + "`session`" + `; one container, ` + "`container`" + `, with ` + "`ownerSeq`" + ` in the order of its owners;
one request, ` + "`request`" + `.

| field | meaning | also on |
|---|---|---|
`)
	for _, f := range Fields() {
		slices.Sort(carried[f.Name])
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Meaning, strings.Join(slices.Compact(carried[f.Name]), "; "))
	}
	b.WriteString(`
## Messages

| message | level | of | fields |
|---|---|---|---|
`)
	lines := map[string]bool{}
	for _, c := range calls {
		if c.Level != "" {
			fields := ""
			if len(c.Fields) > 0 {
				fields = "`" + strings.Join(c.Fields, "`, `") + "`"
			}
			of, _, _ := strings.Cut(c.Where, "/")
			if of == "cmd" {
				of = "process"
			}
			lines[fmt.Sprintf("| %s | %s | %s | %s |\n", c.Message, c.Level, of, fields)] = true
		}
	}
	sorted := make([]string, 0, len(lines))
	for line := range lines {
		sorted = append(sorted, line)
	}
	slices.Sort(sorted)
	b.WriteString(strings.Join(sorted, ""))
	return b.String(), nil
}
