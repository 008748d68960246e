package deploy

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// resource is one of the template's.
type resource struct {
	Type       string
	Properties map[string]any
}

// statement is one of a policy's. CloudFormation has lists and single values alike.
type statement struct {
	Sid              string
	Effect           string
	Action, Resource any
	Condition        map[string]map[string]any
}

// template reads a kept template, which the tests of deploy/cdk prove to be up to date.
func template(t *testing.T, name string) map[string]resource {
	t.Helper()
	text, err := os.ReadFile("cdk/golden/" + name + ".template.json")
	if err != nil {
		t.Fatal(err)
	}
	var whole struct{ Resources map[string]resource }
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	return whole.Resources
}

// list makes one of what may be a single value.
func list(v any) []string {
	if v == nil {
		return nil
	}
	entries, many := v.([]any)
	if !many {
		entries = []any{v}
	}
	texts := make([]string, len(entries))
	for i, e := range entries {
		texts[i] = text(e)
	}
	return texts
}

// text is a value, or how the template refers to it.
func text(v any) string {
	if s, plain := v.(string); plain {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// policy gathers the statements of the role whose logical id begins so.
func policy(t *testing.T, resources map[string]resource, role string) []statement {
	t.Helper()
	var all []statement
	for _, r := range resources {
		if r.Type != "AWS::IAM::Policy" || !strings.Contains(text(r.Properties["Roles"]), `"Ref":"`+role) {
			continue
		}
		b, err := json.Marshal(r.Properties["PolicyDocument"])
		if err != nil {
			t.Fatal(err)
		}
		var document struct{ Statement []statement }
		if err := json.Unmarshal(b, &document); err != nil {
			t.Fatal(err)
		}
		all = append(all, document.Statement...)
	}
	if len(all) == 0 {
		t.Fatalf("the role %s has no policy", role)
	}
	return all
}

func actions(statements []statement) []string {
	var all []string
	for _, s := range statements {
		if s.Effect == "Allow" {
			all = append(all, list(s.Action)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// services are IAM's names of the SDK's packages that may be used.
func services() map[string]string {
	return map[string]string{"ecs": "ecs", "secretsmanager": "secretsmanager"}
}

const sdk = "github.com/aws/aws-sdk-go-v2/service/"

// calls lists the operations of AWS that the service's code calls, as IAM names them, and
// whether it makes tags for them. An operation cannot be called without its input.
func calls(t *testing.T) (called []string, tags bool) {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{"node_modules", "e2e", "charts", "bin", ".git"}, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		names := map[string]string{} // of imports in this file → IAM's of the service
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil || !strings.HasPrefix(imported, sdk) || strings.Contains(imported[len(sdk):], "/") {
				continue
			}
			service := imported[len(sdk):]
			prefix, known := services()[service]
			if !known {
				t.Errorf("%s uses %s: say in services() what IAM calls it", path, imported)
			}
			if spec.Name != nil {
				service = spec.Name.Name
			}
			names[service] = prefix
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if action := operation(n, names); action != "" {
					found[action] = true
				}
			case *ast.CompositeLit:
				of, named := n.Type.(*ast.SelectorExpr)
				tags = tags || named && of.Sel.Name == "Tag" && slices.ContainsFunc(file.Imports, func(spec *ast.ImportSpec) bool {
					return strings.HasPrefix(spec.Path.Value, `"`+sdk+`ecs/types`)
				})
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found)), tags
}

// operation is the action that package.OperationInput is for; empty: it is something else.
func operation(n *ast.SelectorExpr, names map[string]string) string {
	pkg, plain := n.X.(*ast.Ident)
	name, input := strings.CutSuffix(n.Sel.Name, "Input")
	if !plain || !input || names[pkg.Name] == "" {
		return ""
	}
	return names[pkg.Name] + ":" + name
}

// The task role has what the code calls, and what AWS asks for besides, and nothing else.
func TestTheServiceMayDoWhatItsCodeCallsAndNoMore(t *testing.T) {
	want, tags := calls(t)
	if slices.Contains(want, "ecs:RunTask") {
		want = append(want, "iam:PassRole") // of the execution role
		if tags {
			want = append(want, "ecs:TagResource")
		}
	}
	slices.Sort(want)
	if len(want) < 5 {
		t.Fatalf("the code calls %v: the parser above has missed something", want)
	}
	for _, name := range []string{"default", "full"} {
		if diff := cmp.Diff(want, actions(policy(t, template(t, name), "ServiceTaskTaskRole"))); diff != "" {
			t.Errorf("%s: the task role differs from the code (-called +allowed):\n%s", name, diff)
		}
	}
}

// Each action is held to what it is for, as far as AWS can.
func TestTheServiceMayDoItOnlyWhereItIsFor(t *testing.T) {
	inCluster := `{"ecs:cluster":{"Fn::GetAtt":["ClusterEB0386A7","Arn"]}}`
	for _, name := range []string{"default", "full"} {
		resources := template(t, name)
		family := text(only(t, resources, "AWS::ECS::TaskDefinition", "Browsers").Properties["Family"])
		secrets := secretsOf(resources["ServiceTaskF92E9D60"])
		for _, s := range policy(t, resources, "ServiceTaskTaskRole") {
			held := text(s.Condition["ArnEquals"])
			switch where := strings.Join(list(s.Resource), " "); strings.Join(list(s.Action), " ") {
			case "ecs:RunTask":
				if !strings.Contains(where, ":task-definition/"+family+":*") || held != inCluster {
					t.Errorf("%s: RunTask of %s where %s", name, where, held)
				}
			case "ecs:StopTask ecs:DescribeTasks":
				if !strings.Contains(where, `:task/",{"Ref":"ClusterEB0386A7"},"/*"`) || held != inCluster {
					t.Errorf("%s: StopTask of %s where %s", name, where, held)
				}
			case "ecs:ListTasks": // names no resource
				if held != inCluster {
					t.Errorf("%s: ListTasks where %s", name, held)
				}
			case "ecs:TagResource":
				if text(s.Condition["StringEquals"]) != `{"ecs:CreateAction":"RunTask"}` {
					t.Errorf("%s: TagResource where %v", name, s.Condition)
				}
			case "iam:PassRole":
				if !strings.Contains(where, "BrowsersTaskExecutionRole") || text(s.Condition["StringEquals"]) != `{"iam:PassedToService":"ecs-tasks.amazonaws.com"}` {
					t.Errorf("%s: PassRole of %s where %v", name, where, s.Condition)
				}
			case "secretsmanager:GetSecretValue":
				got := list(s.Resource)
				slices.Sort(got)
				if diff := cmp.Diff(secrets, got); diff != "" {
					t.Errorf("%s: secrets (-in the environment +allowed):\n%s", name, diff)
				}
			default:
				t.Errorf("%s: nobody has said where %v may be done", name, s.Action)
			}
		}
	}
}

// secretsOf are the secrets that a task's first container is told of by ARN.
func secretsOf(task resource) []string {
	containers, _ := task.Properties["ContainerDefinitions"].([]any)
	first, _ := containers[0].(map[string]any)
	environment, _ := first["Environment"].([]any)
	var found []string
	for _, e := range environment {
		pair, _ := e.(map[string]any)
		if strings.HasSuffix(text(pair["Name"]), "_SECRET_ARN") {
			found = append(found, text(pair["Value"]))
		}
	}
	slices.Sort(found)
	return found
}

// only is the one resource of that type whose logical id begins so.
func only(t *testing.T, resources map[string]resource, kind, prefix string) resource {
	t.Helper()
	var found []resource
	for id, r := range resources {
		if r.Type == kind && strings.HasPrefix(id, prefix) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d %s that begin with %s", len(found), kind, prefix)
	}
	return found[0]
}

// The functions' roles have what their code calls, on the secrets that they are told of.
func TestTheFunctionsMayDoWhatTheirCodeCallsAndNoMore(t *testing.T) {
	var want []string
	files, err := filepath.Glob("lambda/*.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("the functions' code is not there: %v", err)
	}
	clients := regexp.MustCompile(`import \{([^}]*)\} from '@aws-sdk/client-([a-z-]+)'`)
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range clients.FindAllStringSubmatch(string(code), -1) {
			for name := range strings.SplitSeq(found[1], ",") {
				if call, command := strings.CutSuffix(strings.TrimSpace(name), "Command"); command {
					want = append(want, strings.ReplaceAll(found[2], "-", "")+":"+call)
				}
			}
		}
	}
	resources := template(t, "default")
	functions := 0
	for id, r := range resources {
		if r.Type != "AWS::Lambda::Function" {
			continue
		}
		functions++
		role := id[:len(id)-8] + "ServiceRole" // without the digest of its path
		statements := policy(t, resources, role)
		if diff := cmp.Diff(want, actions(statements)); diff != "" {
			t.Errorf("%s (-called +allowed):\n%s", id, diff)
		}
		environment, _ := r.Properties["Environment"].(map[string]any)
		variables, _ := environment["Variables"].(map[string]any)
		var told, allowed []string
		for name, value := range variables {
			if strings.HasSuffix(name, "_ARN") {
				told = append(told, text(value))
			}
		}
		for _, s := range statements {
			allowed = append(allowed, list(s.Resource)...)
		}
		slices.Sort(told)
		slices.Sort(allowed)
		if diff := cmp.Diff(told, allowed); diff != "" {
			t.Errorf("%s: secrets (-in the environment +allowed):\n%s", id, diff)
		}
	}
	if functions != 5 {
		t.Errorf("there are %d functions, want 5", functions)
	}
}

// The template tells containers nothing that the program does not know.
func TestTheEnvironmentIsOneThatTheProgramKnows(t *testing.T) {
	file, err := os.ReadFile("../charts/wallcrawler/files/settings.json")
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var settings []struct{ Env []string }
	if err := json.Unmarshal(file, &settings); err != nil {
		t.Fatal(err)
	}
	known := []string{"GOMEMLIMIT", "HOME", "TMPDIR"} // everybody's
	exporter, err := os.ReadFile("../charts/wallcrawler/files/otel.json")
	if err != nil {
		t.Fatal(err)
	}
	var variables map[string]bool
	if err := json.Unmarshal(exporter, &variables); err != nil {
		t.Fatal(err)
	}
	known = slices.AppendSeq(known, maps.Keys(variables))
	for _, s := range settings {
		known = append(known, s.Env...)
	}
	for _, name := range []string{"default", "full"} {
		resources := template(t, name)
		for _, prefix := range []string{"ServiceTask", "BrowsersTask"} {
			containers, _ := only(t, resources, "AWS::ECS::TaskDefinition", prefix).Properties["ContainerDefinitions"].([]any)
			first, _ := containers[0].(map[string]any)
			for _, from := range []string{"Environment", "Secrets"} {
				entries, _ := first[from].([]any)
				for _, e := range entries {
					pair, _ := e.(map[string]any)
					variable := text(pair["Name"])
					if !slices.Contains(known, variable) && (prefix != "BrowsersTask" || !strings.Contains(string(agent), "| `"+variable+"` |")) {
						t.Errorf("%s: %s is told %s, which it does not know", name, prefix, variable)
					}
				}
			}
		}
	}
}
