// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kubernetes-sigs/blixt/operator/admin/uninstall"
)

func uninstallCommand() *cobra.Command {
	var cluster clusterFlags
	var o uninstall.Options
	var yes bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Blixt's programs off all nodes, and what the operator has made off the cluster",
		Long: `Stops the operator, removes the agents, has bpfman unload Blixt's programs on every
node, and removes the Services of Gateways, statuses, finalizers and whatever
else the operator has made. Gateways and routes stay as they were written, and
wait for a controller. It says what it does, and what it waits for.

helm uninstall runs it in the cluster, before it removes the rest. By hand it is
for what helm did not finish, or for installations without Helm. It goes on where
it stopped, as often as it is run. From a terminal it asks first.

A node that is down cannot unload its program: that is said after the timeout.
Bring the node back, or have it forgotten with --force-nodes-down, and restart
it before it serves again.`,
		Example: `  blixt uninstall --namespace blixt-system
  blixt uninstall --yes --force-nodes-down --timeout 1m
  blixt uninstall --yes --keep-crds=false`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			kube, _, err := cluster.connect()
			if err != nil {
				return err
			}
			if !yes && term.IsTerminal(int(os.Stdin.Fd())) {
				if err := confirm(c.InOrStdin(), c.OutOrStdout()); err != nil {
					return err
				}
			}
			o.Namespace, o.Out = cluster.namespace, c.OutOrStdout()
			return uninstall.Run(c.Context(), kube, o)
		},
	}
	f := c.Flags()
	cluster.add(f)
	f.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "how long all of it may take")
	f.BoolVar(&o.KeepCRDs, "keep-crds", true, "leave the kinds of Blixt, and the BlixtConfigs and BlixtGatewayConfigs that people have written")
	f.BoolVar(&o.ForceNodesDown, "force-nodes-down", false, "forget the programs of nodes that are not ready")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func confirm(in io.Reader, out io.Writer) error {
	fmt.Fprint(out, "Gateways of Blixt will stop serving, and lose their addresses. Continue? [y/N] ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
