//! The namespace and the contents: `Catalog` and `Content`.

use monofs_model::{Error, Oid};
use monofs_proto::v1;
use monofs_rpc::to_status;
use monofs_store::frame;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, World, streamed};

#[tonic::async_trait]
impl v1::catalog_server::Catalog for World {
    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(
        &self,
        _: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(streamed(Vec::new()))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let path = request.into_inner().path;
        let all = self.repositories.lock();
        let inside = |repository: &&v1::Repository| {
            path.strip_prefix(&repository.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = all.iter().find(inside).cloned();
        let repository = found
            .ok_or_else(|| to_status(Error::not_found(format!("{path} is in no repository"))))?;
        let rest = path[repository.path.len()..]
            .trim_start_matches('/')
            .to_owned();
        Ok(Response::new(v1::ResolveResponse {
            repository: Some(repository),
            rest,
        }))
    }

    async fn get_times(
        &self,
        _: Request<v1::GetTimesRequest>,
    ) -> Result<Response<v1::GetTimesResponse>, Status> {
        Err(Status::unimplemented("no tool asks for times"))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let prefix = request.into_inner().prefix;
        let mut entries: Vec<v1::ListEntry> = Vec::new();
        for repository in self.repositories.lock().iter() {
            let rest = if prefix.is_empty() {
                Some(repository.path.as_str())
            } else {
                repository.path.strip_prefix(&format!("{prefix}/"))
            };
            let Some(rest) = rest else { continue };
            let (name, more) = rest
                .split_once('/')
                .map_or((rest, false), |(name, _)| (name, true));
            if entries.iter().all(|entry| entry.name != name) {
                entries.push(v1::ListEntry {
                    name: name.into(),
                    repository: (!more).then(|| repository.clone()),
                });
            }
        }
        Ok(Response::new(v1::ListResponse {
            entries,
            next_page_token: String::new(),
        }))
    }
}

#[tonic::async_trait]
impl v1::content_server::Content for World {
    type GetTreesStream = Answers<v1::GetTreesResponse>;
    type GetBlobsStream = Answers<v1::GetBlobsResponse>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<Self::GetTreesStream>, Status> {
        if let Err(status) = self.able() {
            return Ok(streamed(vec![Err(status)]));
        }
        let request = request.into_inner();
        let mut answer = v1::GetTreesResponse::default();
        for oid in request.oids {
            match Oid::from_bytes(&oid)
                .ok()
                .and_then(|oid| self.trees.get(&oid))
            {
                Some(record) => answer.trees.push(v1::TreeRecord {
                    oid,
                    record: record.clone(),
                }),
                None => answer.missing.push(oid),
            }
        }
        Ok(streamed(vec![Ok(answer)]))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Self::GetBlobsStream>, Status> {
        if let Err(status) = self.able() {
            return Ok(streamed(vec![Err(status)]));
        }
        let mut answers = Vec::new();
        for span in request.into_inner().spans {
            let oid = Oid::from_bytes(&span.oid).map_err(to_status)?;
            let Some(bytes) = self.blobs.get(&oid) else {
                answers.push(Ok(v1::GetBlobsResponse {
                    missing: vec![span.oid],
                    ..Default::default()
                }));
                continue;
            };
            for index in 0..frame::chunk_count(span.size) {
                let start = (index as usize) << 20;
                let raw = &bytes[start..start + frame::chunk_len(span.size, index)];
                let chunk = v1::BlobChunk {
                    oid: span.oid.clone(),
                    index: index as u32,
                    frame: frame::encode(raw),
                };
                answers.push(Ok(v1::GetBlobsResponse {
                    chunks: vec![chunk],
                    ..Default::default()
                }));
            }
        }
        Ok(streamed(answers))
    }
}
