// SPDX-License-Identifier: Apache-2.0

// Command cluster starts and stops a Kubernetes cluster on this machine, to
// run tests against by hand:
//
//	go run ./e2e/cluster/cmd up
//	export KUBECONFIG=$(go run ./e2e/cluster/cmd kubeconfig)
//	go run ./e2e/cluster/cmd exec node-1 -- ip route
//	go run ./e2e/cluster/cmd down
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if exit, is := errors.AsType[*exec.ExitError](err); is {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o cluster.Options
	root := &cobra.Command{Use: "cluster", Short: "A Kubernetes cluster on this machine", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().StringVar(&o.Name, "name", "e2e", "name of the cluster")

	up := &cobra.Command{Use: "up", Short: "Start the cluster, a new one if there is one", Args: cobra.NoArgs}
	up.Flags().IntVar(&o.Nodes, "nodes", 2, "number of nodes")
	up.Flags().StringVar(&o.Proxy, "proxy", "nftables", "kube-proxy's mode: nftables or iptables")
	up.Flags().BoolVar(&o.Overlay, "overlay", false, "join pods by VXLAN instead of routes")
	up.Flags().BoolVar(&o.Masquerade, "masquerade", false, "give what leaves the pod network the node's address")
	up.Flags().StringVar(&o.Flannel, "flannel", "", "join pods by flannel: vxlan or host-gw")
	up.Flags().BoolVar(&o.NoBpfman, "no-bpfman", false, "do not install bpfman")
	up.RunE = func(cmd *cobra.Command, _ []string) error {
		start := time.Now()
		c, err := cluster.Up(cmd.Context(), o)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "up after %.1f s\n", time.Since(start).Seconds())
		fmt.Printf("export KUBECONFIG=%s\n", c.Kubeconfig())
		return nil
	}
	root.AddCommand(up,
		&cobra.Command{Use: "down", Short: "Stop the cluster and leave nothing of it", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return cluster.Down(o.Name) }},
		find(&o, "status", "Print what runs where", cobra.NoArgs, status),
		find(&o, "kubeconfig", "Print the path of the administrator's kubeconfig", cobra.NoArgs,
			func(_ context.Context, c *cluster.Cluster, _ []string) error {
				_, err := fmt.Println(c.Kubeconfig())
				return err
			}),
		find(&o, "exec MACHINE -- COMMAND...", "Run a command in a node, in control-plane or outside", cobra.MinimumNArgs(2), run))
	return root
}

// find returns a command that needs a running cluster.
func find(o *cluster.Options, use, short string, args cobra.PositionalArgs, f func(context.Context, *cluster.Cluster, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := cluster.Find(o.Name)
		if err != nil {
			return err
		}
		return f(cmd.Context(), c, args)
	}}
}

func status(_ context.Context, c *cluster.Cluster, _ []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MACHINE\tIPV4\tIPV6\tDAEMON\tPID INSIDE")
	for _, m := range c.Machines() {
		daemons, err := m.Daemons()
		if err != nil {
			return err
		}
		if len(daemons) == 0 {
			fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\n", m.Name, m.IPv4, m.IPv6)
		}
		for _, d := range daemons {
			pid := "not running"
			if p := m.Pid(d); p != 0 {
				pid = strconv.Itoa(p)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.IPv4, m.IPv6, d, pid)
		}
	}
	return w.Flush()
}

func run(ctx context.Context, c *cluster.Cluster, args []string) error {
	for _, m := range c.Machines() {
		if m.Name == args[0] {
			cmd := m.Command(ctx, args[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			return cmd.Run()
		}
	}
	return fmt.Errorf("no machine %q: see status", args[0])
}
