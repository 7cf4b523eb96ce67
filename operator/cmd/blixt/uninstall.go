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

// othersRun is the exit code of a removal that another try would not further. The chart's
// Job knows it.
const othersRun = 3

func uninstallCommand() *cobra.Command {
	var cluster clusterFlags
	var o uninstall.Options
	var yes bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Unload Blixt's programs on all nodes, and remove what the operator has created",
		Long: `Stops the operator, removes the agents, has bpfman unload Blixt's programs on every
node, and removes the Services of Gateways, statuses, finalizers and everything
else that the operator has created. Gateways and routes stay as they were written,
and wait for a controller. The command prints what it does and what it waits for.

helm uninstall runs it in the cluster, before Helm removes the rest. Run it by hand
if Helm did not finish, or if Blixt was installed without Helm. Each run continues
where the previous one stopped. On a terminal it shows what it will do, and asks for
confirmation. Elsewhere nobody can answer: it does nothing without --yes.

A node that is down cannot unload its program: the command names it when the
timeout is over. Bring the node back. Or let the command forget it, with
--force-nodes-down, and restart the node before it serves again.`,
		Example: `  blixt uninstall --dry-run
  blixt uninstall --namespace blixt-system
  blixt uninstall --yes --force-nodes-down --timeout 1m
  blixt uninstall --yes --keep-crds=false`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			kube, _, err := cluster.connect()
			if err != nil {
				return err
			}
			o.Namespace, o.Out = cluster.namespace, c.OutOrStdout()
			if !yes && !o.DryRun {
				if !term.IsTerminal(int(os.Stdin.Fd())) {
					return errors.New("nothing was done: confirm the removal of Blixt from this cluster with --yes, or see with --dry-run what it does")
				}
				preview := o
				preview.DryRun = true
				if err := uninstall.Run(c.Context(), kube, preview); err != nil {
					return err
				}
				if err := confirm(c.InOrStdin(), c.OutOrStdout()); err != nil {
					return err
				}
			}
			err = uninstall.Run(c.Context(), kube, o)
			if errors.Is(err, uninstall.ErrOthers) {
				return &exitError{othersRun, err}
			}
			return err
		},
	}
	f := c.Flags()
	cluster.add(f)
	f.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "time limit of the whole removal")
	f.BoolVar(&o.KeepCRDs, "keep-crds", true, "keep the CRDs of Blixt, and with them all BlixtConfigs, BlixtGatewayConfigs and BlixtPolicies")
	f.BoolVar(&o.ForceNodesDown, "force-nodes-down", false, "forget the programs of nodes that are not ready; restart these nodes before they serve again")
	f.BoolVar(&o.WithBpfman, "with-bpfman", false, "bpfman, as the chart has installed it, goes next: do nothing while it has programs of others, and remove its Config at last")
	f.BoolVar(&o.DryRun, "dry-run", false, "only print what would be done; the API server checks the permissions")
	f.BoolVar(&yes, "yes", false, "do not ask for confirmation; required without a terminal")
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
