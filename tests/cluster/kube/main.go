// Command kube has every program of a Kubernetes cluster in one file; its first argument says which one it is to be.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubeapiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kubecontrollermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubescheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func command(make func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(make())) }
}

func main() {
	role := map[string]func(){
		// etcd takes its own name as the first argument.
		"etcd":                    func() { etcdmain.Main(os.Args) },
		"kube-apiserver":          command(kubeapiserver.NewAPIServerCommand),
		"kube-controller-manager": command(kubecontrollermanager.NewControllerManagerCommand),
		"kube-scheduler":          command(func() *cobra.Command { return kubescheduler.NewSchedulerCommand() }),
		"kube-proxy":              command(kubeproxy.NewProxyCommand),
		"kubelet":                 command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
		"kubectl":                 command(kubectl.NewDefaultKubectlCommand),
	}
	if len(os.Args) > 1 && role[os.Args[1]] != nil {
		os.Args = os.Args[1:]
		role[os.Args[0]]()
		return
	}
	names := make([]string, 0, len(role))
	for name := range role {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "kube: say which program: %s\n", strings.Join(names, ", "))
	os.Exit(2)
}
