package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/wallcrawler/wallcrawler/controller"
)

func newContainer() *cobra.Command {
	cmd := &cobra.Command{Use: "container", Short: "Look at containers"}
	var t target
	list := &cobra.Command{
		Use:   "list",
		Short: "List the registered containers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.printList(cmd, "/v1/containers", func(raw json.RawMessage) ([][]string, error) {
				var all []struct {
					ID, Phase, Addr, Owner string
					Used, MaxSessions      int
					SeenAt                 time.Time
					Warm                   int
					CPU, Memory            float64
				}
				if err := json.Unmarshal(raw, &all); err != nil {
					return nil, err
				}
				rows := [][]string{{"ID", "PHASE", "ADDRESS", "USED", "WARM", "CPU", "MEMORY", "SEEN", "OWNER"}}
				for _, c := range all {
					rows = append(rows, []string{c.ID, c.Phase, c.Addr, fmt.Sprintf("%d/%d", c.Used, c.MaxSessions), fmt.Sprint(c.Warm),
						percent(c.CPU), percent(c.Memory), age(c.SeenAt), c.Owner})
				}
				return rows, nil
			})
		},
	}
	t.flags(list)
	cmd.AddCommand(list)
	return cmd
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

func newTask() *cobra.Command {
	cmd := &cobra.Command{Use: "task", Short: "Look at ECS tasks"}
	var t target
	list := &cobra.Command{
		Use:   "list",
		Short: "List the ECS tasks of the deployment",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.printList(cmd, "/v1/tasks", func(raw json.RawMessage) ([][]string, error) {
				var all []taskView
				if err := json.Unmarshal(raw, &all); err != nil {
					return nil, err
				}
				rows := [][]string{{"ARN", "CONTAINER", "LAST", "DESIRED", "ADDRESS", "AGE", "STOP"}}
				for _, v := range all {
					rows = append(rows, []string{v.ARN, v.ContainerID, v.LastStatus, v.DesiredStatus, v.Addr, age(v.CreatedAt), v.StopCode})
				}
				return rows, nil
			})
		},
	}
	t.flags(list)
	cmd.AddCommand(list)
	return cmd
}

func newPlan() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what the controller would do now, and why",
		Long: `Print what the controller would do now, and why; and what it holds back, and why. Nothing is
carried out. A service at rest has nothing to do: the leader has done it already.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.client()
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.do(cmd.Context(), http.MethodGet, "/v1/plan", nil, &raw); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), raw)
			}
			var e controller.Explanation
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			printPlan(cmd.OutOrStdout(), e)
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}

func printPlan(w io.Writer, e controller.Explanation) {
	d := e.Demand
	fmt.Fprintf(w, "slots: %d live, %d pending (%d without room), %d free, %d starting; containers: %d, %d more wanted, %d not needed\n",
		d.Live, d.Pending, d.Unplaced, d.Free, d.Coming, d.Containers, d.Launch, d.Surplus)
	if len(e.Actions) == 0 {
		fmt.Fprintln(w, "nothing to do")
	}
	rows := [][]string{}
	for _, a := range e.Actions {
		rows = append(rows, []string{"do", string(a.Kind), a.Subject, a.Because})
	}
	for _, h := range e.Holds {
		rows = append(rows, []string{"hold", string(h.What), h.ID, h.Why})
	}
	printTable(w, rows)
}
