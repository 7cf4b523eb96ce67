// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/admin/bpfmanconfig"
)

// bpfmanConfigCommand is for the chart.
func bpfmanConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "bpfman-config",
		Short:  "Apply or remove the Config of the bpfman that the chart installs",
		Hidden: true,
		Args:   cobra.NoArgs,
	}
	var cluster clusterFlags
	o := bpfmanconfig.Options{}
	do := func(run func(context.Context, client.Client, []string) error) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, args []string) error {
			kube, _, err := cluster.connect()
			if err != nil {
				return err
			}
			o.Out = c.OutOrStdout()
			return run(c.Context(), kube, args)
		}
	}
	apply := &cobra.Command{
		Use:   "apply FILE",
		Short: "Apply the Config of a file as soon as its kind is defined",
		Args:  cobra.ExactArgs(1),
		RunE: do(func(ctx context.Context, kube client.Client, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read Config: %w", err)
			}
			return bpfmanconfig.Apply(ctx, kube, text, o)
		}),
	}
	remove := &cobra.Command{
		Use:   "remove",
		Short: "Delete the Config that apply has applied, and wait until it is gone",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, kube client.Client, _ []string) error {
			return bpfmanconfig.Remove(ctx, kube, o)
		}),
	}
	cluster.add(c.PersistentFlags())
	c.PersistentFlags().DurationVar(&o.Timeout, "timeout", 2*time.Minute, "time limit of the command")
	remove.Flags().DurationVar(&o.Patience, "patience", bpfmanconfig.Patience, "how long to wait for bpfman's operator to remove its finalizer")
	c.AddCommand(apply, remove)
	return c
}
