// Renders a Helm chart out of a directory, with another directory as its library, as `helm template`
// does: charts CHART LIBRARY RELEASE NAMESPACE [KEY=VALUE...] prints the manifests. Upstream's guides
// install by charts that stand in their Go module.
package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: charts CHART LIBRARY RELEASE NAMESPACE [KEY=VALUE...]")
		os.Exit(2)
	}
	if err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, "charts:", err)
		os.Exit(1)
	}
}

func render(dir, library, release, namespace string, sets []string) error {
	chart, err := loader.Load(dir)
	if err != nil {
		return err
	}
	if library != "-" {
		// What `helm dependency update` would put into the chart.
		dependency, err := loader.Load(library)
		if err != nil {
			return err
		}
		chart.AddDependency(dependency)
	}
	values := map[string]any{}
	for _, set := range sets {
		if err := strvals.ParseInto(set, values); err != nil {
			return fmt.Errorf("%s: %w", set, err)
		}
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		return err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, options, nil)
	if err != nil {
		return err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(files))
	for name, text := range files {
		if path.Ext(name) == ".yaml" && strings.TrimSpace(text) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Printf("---\n# %s\n%s\n", name, files[name])
	}
	return nil
}
