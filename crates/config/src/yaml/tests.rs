//! Messages, places and suggestions for typical mistakes.

use super::*;

#[test]
fn scratch() {
    let text = std::fs::read_to_string("/tmp/plain.yaml").unwrap();
    let decoded = decode("plain.yaml", &text);
    println!("{:?}", decoded.errors);
    let objects: crate::Objects = decoded.objects.clone().into_iter().collect();
    let out = crate::export(objects.all());
    println!("{out}");
    let c = crate::compile(&objects);
    println!("{}", c.statuses);
    println!("{}", serde_json::to_string_pretty(&*c.snapshot).unwrap());
    let again = decode("x", &out);
    println!("{:?}", again.errors);
    let oo = again.objects.into_iter().collect();
    assert_eq!(crate::compile(&oo).snapshot, c.snapshot);
    for bad in [
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  parentRef:\n  - name: x\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules:\n  - timeouts:\n      request: 5 minutes\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules:\n  - timeouts: 5s\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules:\n  - backendRefs:\n    - name: x\n      port: 80000\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules:\n  - backendRefs:\n    - name: x\n      port: \"http\"\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\n  name: b\nspec: {}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n\tname: a\nspec: {}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: 12\nspec: {}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  labels: {}\nspec: {}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules: 7\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  hostnames: [a.com, \"bad_host\"]\n  rules:\n  - filters:\n    - type: URLRewrite\n",
        "listen: 127.0.0.1:4000\npools:\n  - name: a\n    endpoint: [x]\n",
        "listen: 127.0.0.1\npools: []\n",
        "pools:\n  - name: a\n    endpoints: [\"https://x:1\"]\n",
        "pools:\n  - name: a\n    endpoints: [http://x:1]\n    profile: leastRequest\n",
        "pools:\n  - name: a\n    endpoints: [http://x:1]\n    models: [7, x]\n",
        "pools: [\n",
        "just text\n",
        "# c\n---\n---\n{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\"}\n",
    ] {
        let d = decode("f", bad);
        for e in d.errors.iter() {
            println!("E {e}");
        }
        for e in d.warnings.iter() {
            println!("W {e}");
        }
        if d.errors.is_empty() {
            println!("NONE {bad}");
        }
    }
}
