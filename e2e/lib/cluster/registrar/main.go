// SPDX-License-Identifier: Apache-2.0

// Command registrar tells the kubelet of a CSI driver, by the flags of the
// node-driver-registrar that clusters run beside such drivers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// folder is where the kubelet looks for plugins, in this container.
const folder = "/registration"

func main() {
	driver := flag.String("csi-address", "/csi/csi.sock", "socket of the driver")
	path := flag.String("kubelet-registration-path", "", "where the kubelet finds that socket")
	flag.Int("v", 0, "not used")
	flag.Parse()
	if err := run(*driver, *path); err != nil {
		log.Fatal(err)
	}
}

func run(driver, path string) error {
	name, err := driverName(driver)
	if err != nil {
		return err
	}
	socket := folder + "/" + name + "-reg.sock"
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go forget(socket)
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, registrar{name: name, path: path})
	return server.Serve(l)
}

// forget removes the socket at the end: then the kubelet forgets the driver.
func forget(socket string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	_ = os.Remove(socket)
	os.Exit(0)
}

// driverName asks the driver for its name. The driver may start later than this
// process.
func driverName(socket string) (string, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", fmt.Errorf("connect to driver: %w", err)
	}
	defer conn.Close()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return info.Name, nil
		}
		log.Printf("ask driver for its name: %v", err)
		time.Sleep(200 * time.Millisecond)
	}
}

type registrar struct {
	registration.UnimplementedRegistrationServer
	name, path string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.name, Endpoint: r.path, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r registrar) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		log.Fatalf("the kubelet refuses %s: %s", r.name, s.Error) // the kubelet starts us again
	}
	log.Printf("the kubelet knows %s", r.name)
	return &registration.RegistrationStatusResponse{}, nil
}
