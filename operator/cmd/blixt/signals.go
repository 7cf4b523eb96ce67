// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// stopSignals returns the signals that end a command in an orderly way. SIGHUP is one of
// them if it says that the terminal of the process is gone.
func stopSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if hasTerminal() && !signal.Ignored(syscall.SIGHUP) { // nohup has it ignored
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// endAtOnce has signals end the process, as nothing has to be put in order: a command that waits
// for its standard input would not hear of them.
func endAtOnce() { signal.Reset(stopSignals()...) }

// hangups returns a channel with the SIGHUPs that a process without a terminal gets:
// somebody asks a daemon to read its files again. It must not end by them.
func hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	if !hasTerminal() && !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(c, syscall.SIGHUP)
	}
	return c
}

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = tty.Close() // it was only looked for
	return true
}
