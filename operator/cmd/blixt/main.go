// SPDX-License-Identifier: Apache-2.0

// Command blixt is a layer-4 load balancer: all of it in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	runtime.MemProfileRate = 0 // nobody reads profiles of what is allocated, which take memory
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()
	c := command()
	if !forShell(os.Args) {
		c.SetOut(&terminal{out: os.Stdout})
	}
	c.SetErr(&terminal{out: os.Stderr})
	log.SetOutput(&terminal{out: os.Stderr}) // of slog's default, too
	if code := exit(c, c.ExecuteContext(ctx)); code != 0 {
		stop()
		os.Exit(code)
	}
}

// exit says what went wrong with a command, if that was not said, and returns the exit code.
func exit(c *cobra.Command, err error) int {
	if err != nil && !errors.Is(err, errSaid) {
		// What cobra indents with a tab would be shown as one.
		fmt.Fprintln(c.ErrOrStderr(), "blixt:", strings.ReplaceAll(err.Error(), "\t", "  "))
	}
	return exitCode(err)
}

// forShell reports whether the output is for the script of a shell, which divides it at tabs:
// complete lets no name pass that a terminal would obey.
func forShell(args []string) bool {
	return len(args) > 1 && strings.HasPrefix(args[1], cobra.ShellCompRequestCmd)
}

// exitCode returns that of a command which returns an error, or nil.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, is := errors.AsType[*exitError](err); is {
		return e.code
	}
	if _, is := errors.AsType[*usageError](err); is {
		return exitUsage
	}
	return 1
}

func command() *cobra.Command {
	c := &cobra.Command{
		Use:   "blixt",
		Short: "A layer-4 load balancer for Gateway API, with an eBPF data plane",
		Long: `Blixt balances TCP and UDP with eBPF. It serves what objects of Kubernetes'
Gateway API describe: Gateway, TCPRoute, UDPRoute.

Without Kubernetes run, as root, with your own addresses:
  blixt run --listen 192.0.2.10:80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080
or with a directory of these objects, such as blixt init writes:
  blixt run -f DIR
To see what it does, and what is missing if it does not work:
  blixt status
  blixt doctor
Documentation: https://github.com/kubernetes-sigs/blixt/tree/main/docs`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand(), initCommand(), checkCommand(), operatorCommand(), agentCommand(), peerKeyCommand(), unloadCommand(), statusCommand(), flowsCommand(), dropsCommand(), traceCommand(), topCommand(), bytecodeCommand(), doctorCommand(), auditCommand(), sysdumpCommand(), uninstallCommand(), versionCommand())
	c.AddCommand(drainCommand(), undrainCommand(), pageCommand())
	c.AddCommand(manCommand(), backendsCommand(), policyCommand(), bpfmanConfigCommand(), migrateCommand())
	c.InitDefaultCompletionCmd()
	checkUsage(c)
	completeValues(c)
	return c
}
